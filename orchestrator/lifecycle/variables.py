"""The environment variables that a run sees: a clean set, so that a run depends on its spec and not on whose shell
started the server. Nothing of a parent run is in it."""

from __future__ import annotations

import fnmatch
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import orchestrator
from orchestrator.executors.base import RunPaths
from orchestrator.home import Home
from orchestrator.runtime import CHECKPOINTS

ANYWHERE = ("LANG", "LC_*", "TZ", "*_proxy", "*_PROXY", "HF_ENDPOINT")
"""Variables of the server that every run sees, wherever it is; `pass_env` of the configuration adds to them."""

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
"""Those that name people and files of this machine, and so are of use only to runs that see them."""

_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def certificates(server_env: Mapping[str, str]) -> Path | None:
    """The CA bundle that the server was told to trust; None when it was told none."""
    for name in _CERTIFICATES:
        if server_env.get(name) and Path(server_env[name]).is_file():
            return Path(server_env[name]).resolve()
    return None


def passed(server_env: Mapping[str, str], more: Iterable[str], *, is_host: bool) -> dict[str, str]:
    """The variables of the server's own environment that its runs may see.

    Args:
        more: patterns of the configuration.
        is_host: whether the runs see the files of this machine.
    """
    patterns = [*ANYWHERE, *more, *(HOST if is_host else ())]
    return {
        name: value
        for name, value in server_env.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) and not name.startswith("SPELL_")
    }


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
    """All variables of one run; what the spec asked for wins, except over what spell itself needs.

    Args:
        paths: where it sees what it is given.
        attempt: which attempt of it this is.
        gpus: indices of its GPUs.
        asked: the spec's variables.
        inherited: see `passed`.
    """
    path = asked.get("PATH") or paths.path or os.environ.get("PATH") or _SAFE_PATH
    env = {
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order in which NVML counts
        **inherited,
        **(dict.fromkeys(_CERTIFICATES, paths.certificates) if paths.certificates else {}),
        **({} if paths.is_host else {"USER": "spell", "LOGNAME": "spell"}),  # its uid has no name there
        **asked,
    }
    env["PATH"] = ":".join([*paths.tools, f"{paths.environment}/bin", path])
    env["PYTHONPATH"] = ":".join(filter(None, [paths.code, asked.get("PYTHONPATH", ""), paths.runtime]))
    if paths.bytecode:
        env["PYTHONPYCACHEPREFIX"] = paths.bytecode
    if paths.home:
        env.setdefault("HOME", paths.home)
    env["VIRTUAL_ENV"] = paths.environment
    # in a container there are no others, and so they are counted anew
    env["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in (gpus if paths.is_host else range(len(gpus))))
    if paths.is_host:
        env["SPELL_HOME"] = str(home.root)
    env["SPELL_RUN"] = str(number)
    env["SPELL_METRICS"] = paths.metrics
    env["SPELL_ATTEMPT"] = str(attempt)
    env["SPELL_CHECKPOINT_DIR"] = f"{paths.code}/{CHECKPOINTS}"
    return env


def install_runtime(home: Home) -> None:
    """Put `orchestrator.runtime`, and nothing else of ours, where every run can import it, and `spell` on its PATH."""
    package = Path(orchestrator.__file__).parent
    for name in ("__init__.py", "runtime.py"):
        _install(home.runtime / "orchestrator" / name, (package / name).read_bytes(), 0o644)
    # Isolated: what the run can import must not come before what spell itself imports.
    command = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -m orchestrator.cli.main "$@"\n'
    _install(home.runtime / "bin" / "spell", command.encode(), 0o755)


def _install(target: Path, content: bytes, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.chmod(mode)
    beside.rename(target)
