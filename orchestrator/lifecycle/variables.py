"""The environment variables of a run: a clean set, so that a run depends on its spec and not on the shell that started
the server. A nested run inherits nothing of its parent."""

from __future__ import annotations

import fnmatch
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import orchestrator
from orchestrator.executors.base import RunPaths
from orchestrator.home import Home, set_aside
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

_IMAGES = ("LANG", "LC_*", "TZ", "HF_ENDPOINT", "PYTHONUNBUFFERED", "CUDA_DEVICE_ORDER", "USER", "LOGNAME")
"""Variables that have the value of an image that sets them. Others, as proxies, are those of this machine."""
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
        name: value for name, value in server_env.items() if _matches(name, patterns) and not name.startswith("SPELL_")
    }


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def compose(
    home: Home,
    number: int,
    paths: RunPaths,
    *,
    attempt: int,
    gpus: tuple[int, ...],
    asked: Mapping[str, str],
    inherited: Mapping[str, str],
    bare: bool,
) -> dict[str, str]:
    """Return all variables of one run; a container adds those of its image that are not among them.

    The table in docs/usage.md, "Variables of a run", says whose value counts. `spec.variables` refuses values that cannot
    be used.

    Args:
        paths: the paths as the run sees them.
        attempt: the number of the attempt.
        gpus: indices of its GPUs.
        asked: the spec's variables.
        inherited: see `passed`.
        bare: whether no packages and no Python were asked for: a container then has those of its image as they are.
    """
    usual = {
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order of NVML
        **inherited,
        **({} if paths.is_host else {"USER": "spell", "LOGNAME": "spell"}),  # its uid has no name in a container
    }
    env = {name: value for name, value in usual.items() if not (name in paths.variables and _matches(name, _IMAGES))}
    if paths.certificates:
        env |= dict.fromkeys(_CERTIFICATES, paths.certificates)
    if paths.bytecode:
        env["PYTHONPYCACHEPREFIX"] = paths.bytecode
    if paths.home:
        env.setdefault("HOME", paths.home)
    is_image_as_it_is = bare and not paths.is_host
    if not is_image_as_it_is:
        env["VIRTUAL_ENV"] = paths.environment
    # a container sees no other GPUs, so its GPUs are counted from 0
    env["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in (gpus if paths.is_host else range(len(gpus))))
    env |= asked
    own, path = f"{paths.environment}/bin", asked.get("PATH") or paths.path or os.environ.get("PATH") or _SAFE_PATH
    # last, it only gives a `python` to an image without one
    env["PATH"] = ":".join([*paths.tools, *([path, own] if is_image_as_it_is else [own, path])])
    places = [paths.code, asked.get("PYTHONPATH", ""), paths.pythonpath, paths.runtime]
    env["PYTHONPATH"] = ":".join(filter(None, places))
    if paths.is_host:
        env["SPELL_HOME"] = str(home.root)
    env["SPELL_RUN"] = str(number)
    env["SPELL_METRICS"] = paths.metrics
    env["SPELL_ATTEMPT"] = str(attempt)
    env["SPELL_CHECKPOINT_DIR"] = f"{paths.code}/{CHECKPOINTS}"
    return env


def install_runtime(home: Home) -> None:
    """Install `orchestrator.runtime`, and no other module, where every run can import it, and `spell` on its PATH."""
    package = Path(orchestrator.__file__).parent
    for name in ("__init__.py", "runtime.py"):
        _install(home.runtime / "orchestrator" / name, (package / name).read_bytes(), 0o644)
    # -I: modules that the run can import must not come before those of spell.
    command = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -m orchestrator.cli.main "$@"\n'
    _install(home.runtime / "bin" / "spell", command.encode(), 0o755)


def _install(target: Path, content: bytes, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.chmod(mode)
    set_aside(target)
    beside.rename(target)
