"""Which build of torch a request gets: that for the GPU driver of this machine, or for CPUs, instead of whatever PyPI has.

uv's torch backend takes torch and its companions from the index of one build, and from nowhere else. So it is used only
where nobody has said where torch comes from: no hash or URL, no index and no find-links (see `settings`). PyPI's own build for
Linux is one for CUDA, with gigabytes of libraries that a machine without a GPU never loads.
"""

from __future__ import annotations

import re
import sys

from packaging.utils import canonicalize_name

from orchestrator import machine
from orchestrator.environments.request import Local, ParsedRequest
from orchestrator.environments.requirement_lines import requirement_of

_TORCH = frozenset({"torch", "torchvision", "torchaudio"})
_CUDA = (130, 129, 128, 126, 124, 121, 118)
"""The builds for CUDA that torch has had since 2.0, by the names of uv, the newest first."""
_BUILD = re.compile(r"(cpu|cu\d+|rocm[\d.]+|xpu)\Z")


def chosen(setting: str) -> str:
    """The backend that the configuration means for this machine; "" for none.

    Args:
        setting: "auto", "none", or the name of a backend.
    """
    if setting != "auto":
        return "" if setting == "none" else setting
    if not sys.platform.startswith("linux"):
        return ""  # elsewhere PyPI has one build only
    driver = machine.cuda_version() if machine.gpu_count() else 0
    return next((f"cu{build}" for build in _CUDA if build <= driver), "cpu")


def backend_of(asked: ParsedRequest, chosen: str) -> str:
    """The backend for a request; "" for none.

    Args:
        asked: the request.
        chosen: see `chosen`.
    """
    every = (*asked.lines, *(line for file in asked.files for line in file.lines))
    lines = [line for line in every if isinstance(line, str)]
    if not chosen or asked.projects or "require-hashes" in asked.options or any(" --hash" in line for line in lines):
        return ""
    if any(isinstance(line, Local) and line.path.name.partition("-")[0] in _TORCH for line in every):
        return ""
    for item in (requirement_of(line) for line in lines if "torch" in line):
        if item is not None and canonicalize_name(item.name) in _TORCH:
            if item.url:
                return ""
            labels = [each.version.partition("+")[2] for each in item.specifier]
            if found := next((label for label in labels if label), ""):
                return found if _BUILD.match(found) else ""
    return chosen
