"""The environment variables of a run: a clean set, so that a run depends on its spec and not on the shell that started
the server. A nested run inherits nothing of its parent."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.executors.paths import RunPaths
from orchestrator.home import Home
from orchestrator.lifecycle import runtime_files

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
_MANAGERS = {"asdf", "mise", "rtx", "rye"}
"""Version managers whose folder `shims` has the `pip` and `torchrun` of some Python; pyenv has forks of other names."""
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


def without_pythons(path: str) -> str:
    """Return a PATH without the folders that belong to another Python: virtual and conda environments, version managers.

    Links to them count, too. Their `pip` would install into them, and their `torchrun` would start the Python that they belong to.
    """
    return ":".join(folder for folder in path.split(":") if folder and not _is_of_a_python(Path(folder)))


def _is_of_a_python(folder: Path) -> bool:
    return any(_is_bin_of_a_python(place) for place in (folder, Path(os.path.realpath(folder))))


def _is_bin_of_a_python(folder: Path) -> bool:
    root = folder.parent
    if folder.name == "condabin" or any(os.path.exists(root / name) for name in ("pyvenv.cfg", "conda-meta")):
        return True
    names = {part.lstrip(".") for part in folder.parts}
    if folder.name == "shims" and (names & _MANAGERS or any("pyenv" in name for name in names)):
        return True
    # ~/.pyenv/versions/3.12.1/bin, ~/.asdf/installs/python/3.12.1/bin
    is_pyenv = any("pyenv" in name for name in names) and root.parent.name == "versions"
    return is_pyenv or root.parent.parts[-2:] == ("installs", "python")


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
    site: str,
    checkpoints: str,
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
        site: the folder of the packages in its layer, as the run sees it.
        checkpoints: the folder of its checkpoints, relative to the root of the code.
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
    if not (is_image_as_it_is and "VIRTUAL_ENV" in paths.variables):
        env["VIRTUAL_ENV"] = paths.layer
    # a container sees no other GPUs, so its GPUs are counted from 0
    env["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in (gpus if paths.is_host else range(len(gpus))))
    env |= asked
    env["PATH"], env["PYTHONPATH"] = _places(paths, asked, site if is_image_as_it_is else "")
    if paths.is_host:
        env["SPELL_HOME"] = str(home.root)
    env["SPELL_RUN"] = str(number)
    env["SPELL_METRICS"] = paths.metrics
    env["SPELL_ATTEMPT"] = str(attempt)
    env["SPELL_CHECKPOINT_DIR"] = f"{paths.code}/{checkpoints}"
    return env


def _places(paths: RunPaths, asked: Mapping[str, str], site: str) -> tuple[str, str]:
    """Return PATH and PYTHONPATH; `site` is "" unless the run has its image as it is."""
    path = asked.get("PATH") or paths.path or without_pythons(os.environ.get("PATH", "")) or _SAFE_PATH
    own = f"{paths.layer}/bin"
    modules = [paths.code, asked.get("PYTHONPATH", ""), paths.pythonpath, runtime_files.modules(paths)]
    if site:
        tools, pip = runtime_files.of_image_as_it_is(paths)
        programs = [*paths.tools, tools, path, own]  # last, it only gives `python` to an image without one
        modules += [pip, site]  # else the image's Python does not see what the run installs
    else:
        programs = [*paths.tools, own, path]
    return ":".join(programs), ":".join(filter(None, modules))
