"""The environment variables that a run sees: a clean set, so that a run depends on its spec and not on whose shell
started the server. Nothing of a parent run is in it."""

from __future__ import annotations

import fnmatch
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.home import Home

PASSED = (
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_*",
    "TZ",
    "TMPDIR",
    "*_proxy",
    "*_PROXY",
    "SSL_CERT_*",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_PATH",
    "HF_HOME",
    "HF_ENDPOINT",
)
"""Variables of the server that every run sees; `pass_env` of the configuration adds to them."""

_SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def passed(server_env: Mapping[str, str], more: Iterable[str]) -> dict[str, str]:
    """The variables of the server's own environment that its runs may see."""
    patterns = [*PASSED, *more]
    return {
        name: value
        for name, value in server_env.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) and not name.startswith("SPELL_")
    }


def compose(
    home: Home,
    number: int,
    *,
    code: Path,
    environment: Path,
    bytecode: Path | None,
    gpus: tuple[int, ...],
    asked: Mapping[str, str],
    inherited: Mapping[str, str],
) -> dict[str, str]:
    """All variables of one run; what the spec asked for wins, except over what spell itself needs.

    Args:
        code: the root of the code.
        environment: the root of the Python environment.
        bytecode: where Python keeps byte code while that of the environment is not compiled yet.
        gpus: indices of its GPUs.
        asked: the spec's variables.
        inherited: see `passed`.
    """
    path = os.environ.get("PATH") or _SAFE_PATH
    env = {
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order in which NVML counts
        **inherited,
        **asked,
    }
    env["PATH"] = ":".join([f"{home.runtime}/bin", f"{environment}/bin", asked.get("PATH", path)])
    env["PYTHONPATH"] = ":".join(filter(None, [str(code), asked.get("PYTHONPATH", ""), str(home.runtime)]))
    if bytecode:
        env["PYTHONPYCACHEPREFIX"] = str(bytecode)
    env["VIRTUAL_ENV"] = str(environment)
    env["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in gpus)
    env["SPELL_HOME"] = str(home.root)
    env["SPELL_RUN"] = str(number)
    env["SPELL_METRICS"] = str(home.metrics(number))
    env["SPELL_CHECKPOINT_DIR"] = str(code / "checkpoints")
    return env


def install_runtime(home: Home) -> None:
    """Put `orchestrator.runtime`, and nothing else of ours, where every run can import it, and `spell` on its PATH."""
    package = Path(__file__).parent
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
