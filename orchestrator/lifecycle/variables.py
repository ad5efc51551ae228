"""The environment variables of a run: a clean set, so that a run depends on its spec and not on the shell that started
the server. A nested run inherits nothing of its parent."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.executors.base import RunPaths
from orchestrator.home import Home
from orchestrator.runtime import CHECKPOINTS

ANYWHERE = ("LANG", "LC_*", "TZ", "*_proxy", "*_PROXY", "HF_ENDPOINT")
"""Variables of the server that every run gets; `pass_env` of the configuration adds to them."""

HOST = (
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "SSL_CERT_*",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_PATH",
    "HF_HOME",
)
"""Variables that name users and files of this machine, so only runs that see these get them."""

_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def certificates(server_env: Mapping[str, str]) -> Path | None:
    """Return the CA bundle in the server's variables; None when they name none."""
    for name in _CERTIFICATES:
        if server_env.get(name) and Path(server_env[name]).is_file():
            return Path(server_env[name]).resolve()
    return None


def passed(server_env: Mapping[str, str], more: Iterable[str], *, is_host: bool) -> dict[str, str]:
    """Return the variables of the server that its runs get.

    Args:
        more: further patterns, from the configuration.
        is_host: whether the runs see the files of this machine.
    """
    patterns = [*ANYWHERE, *more, *(HOST if is_host else ())]
    return {
        name: value
        for name, value in server_env.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) and not name.startswith("SPELL_")
    }


def without_pythons(path: str) -> str:
    """Return a PATH without the folders that belong to another Python: virtual and conda environments, pyenv.

    Their `pip` would install into them, and their `torchrun` would start the Python that they belong to.
    """
    return ":".join(folder for folder in path.split(":") if folder and not _is_of_a_python(Path(folder)))


def _is_of_a_python(folder: Path) -> bool:
    root = folder.parent
    if folder.name == "condabin" or (root / "pyvenv.cfg").exists() or (root / "conda-meta").exists():
        return True
    is_pyenv = any("pyenv" in part for part in folder.parts)
    return is_pyenv and (folder.name == "shims" or root.parent.name == "versions")


def compose(
    home: Home,
    number: int,
    paths: RunPaths,
    *,
    attempt: int,
    gpus: tuple[int, ...],
    asked: Mapping[str, str],
    inherited: Mapping[str, str],
) -> dict[str, str]:
    """Return all variables of one run. Those of the spec override others, except those that spell itself sets.

    Args:
        paths: the paths as the run sees them.
        attempt: the number of the attempt.
        gpus: indices of its GPUs.
        asked: the spec's variables.
        inherited: see `passed`.
    """
    path = asked.get("PATH") or paths.path or without_pythons(os.environ.get("PATH", "")) or _SAFE_PATH
    env = {
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order of NVML
        **inherited,
        **(dict.fromkeys(_CERTIFICATES, paths.certificates) if paths.certificates else {}),
        **({} if paths.is_host else {"USER": "spell", "LOGNAME": "spell"}),  # its uid has no name in a container
        **asked,
    }
    env["PATH"] = ":".join([*paths.tools, f"{paths.layer}/bin", path])
    env["PYTHONPATH"] = ":".join(filter(None, [paths.code, asked.get("PYTHONPATH", ""), paths.runtime]))
    if paths.bytecode:
        env["PYTHONPYCACHEPREFIX"] = paths.bytecode
    if paths.home:
        env.setdefault("HOME", paths.home)
    env["VIRTUAL_ENV"] = paths.layer
    # a container sees no other GPUs, so its GPUs are counted from 0
    env["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in (gpus if paths.is_host else range(len(gpus))))
    if paths.is_host:
        env["SPELL_HOME"] = str(home.root)
    env["SPELL_RUN"] = str(number)
    env["SPELL_METRICS"] = paths.metrics
    env["SPELL_ATTEMPT"] = str(attempt)
    env["SPELL_CHECKPOINT_DIR"] = f"{paths.code}/{CHECKPOINTS}"
    return env
