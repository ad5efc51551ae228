"""What every run has beside its own: `orchestrator.runtime`, and the commands `spell`, `pip` and `uv`.

They are installed when a server starts, below `store/runtime`, so that runs can use them after an upgrade of spell:

    modules/          what code of a run imports
    bin/spell         on the PATH of a run that sees the server
    tools/uv          on the PATH of every run: the uv that comes next on it, or ours
    copied/pip        a copy of spell's pip, for runs that could write into it
    inside/           see `orchestrator/inside`
    pip/pip           a link to the pip that was installed with spell; a container sees it at another place
    as_is/bin/pip     on the PATH of a run that has its image as it is: the pip of its layer
    as_is/modules/    `python -m pip` becomes that one
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import threading
from pathlib import Path

import orchestrator
from orchestrator.environments import BASES_FILE, own_pip, own_uv, pip_works
from orchestrator.executors.base import ENVIRONMENT_IN_CONTAINERS, LAYER_IN_CONTAINERS, UV_IN_CONTAINERS
from orchestrator.executors.paths import RunPaths
from orchestrator.home import Home, set_aside

_PACKAGE = Path(orchestrator.__file__).parent
_COPYING = threading.Lock()
_IMPORTED = ("__init__.py", "runtime.py")
_INSIDE = (
    ("shown_packages.py", "inside/shown_packages.py"),
    ("stand_in.py", "inside/no_pip/pip/__main__.py"),
    ("image_pip.py", "as_is/modules/pip/__init__.py"),
    ("image_pip.py", "as_is/modules/pip/__main__.py"),
)
_BASES = f"{ENVIRONMENT_IN_CONTAINERS}/lib/*/site-packages/{BASES_FILE}"
_PIP = """#!/bin/sh
# Installs into the layer, also what is said to be for the user: a virtual environment has no packages of its user.
for word; do
    shift
    [ "$word" = --user ] || set -- "$@" "$word"
done
unset PIP_USER
exec {layer}/bin/python -m pip "$@"
"""
_UV = """#!/bin/sh
# Shows `uv pip` the packages of the shared environment, then becomes the uv that comes next on the PATH, else spell's.
here=$(dirname -- "$0")
for word; do
    if [ "$word" = pip ]; then
        case :$PATH: in */as_is/bin:*)
            # The image's own environment and Python have no place to install to.
            if [ "$VIRTUAL_ENV" ] && grep -qsF "('$VIRTUAL_ENV/" {bases}; then VIRTUAL_ENV={layer}; fi
            if [ "$VIRTUAL_ENV" = {layer} ]; then unset UV_SYSTEM_PYTHON; fi ;;
        esac
        if [ -x "$VIRTUAL_ENV/bin/python" ]; then
            "$VIRTUAL_ENV/bin/python" -I "$here/../inside/shown_packages.py"
        fi
        break
    fi
done
: "${UV_LINK_MODE:=copy}" # hard links would share the files with other environments of the person
export UV_LINK_MODE
set -f
IFS=:
for folder in $PATH; do
    if [ -x "$folder/uv" ] && ! [ "$folder/uv" -ef "$0" ]; then exec "$folder/uv" "$@"; fi
done
for ours in {ours}; do
    if [ -x "$ours" ]; then exec "$ours" "$@"; fi
done
echo "uv: not found" >&2
exit 127
"""


def install(home: Home) -> None:
    """Install them. Raises OSError."""
    for name in _IMPORTED:
        _install(home.runtime / "modules" / "orchestrator" / name, (_PACKAGE / name).read_bytes(), 0o644)
    for name, target in _INSIDE:
        _install(home.runtime / target, (_PACKAGE / "inside" / name).read_bytes(), 0o644)
    # -I: modules that the run can import must not come before those of spell.
    command = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -m orchestrator.cli.main "$@"\n'
    _install(home.runtime / "bin" / "spell", command.encode(), 0o755)
    _install(home.runtime / "tools" / "uv", _filled(_UV), 0o755)
    for name in ("pip", "pip3"):
        _install(home.runtime / "as_is" / "bin" / name, _filled(_PIP), 0o755)
    if package := own_pip():
        _link(home.runtime / "pip" / "pip", package)


def _filled(script: str) -> bytes:
    ours = " ".join([UV_IN_CONTAINERS, *(shlex.quote(str(path)) for path in [own_uv()] if path)])
    for word, meaning in (("{ours}", ours), ("{layer}", LAYER_IN_CONTAINERS), ("{bases}", _BASES)):
        script = script.replace(word, meaning)
    return script.encode()


def modules(paths: RunPaths) -> str:
    """Return the folder of what every run can import, as the run sees it."""
    return f"{paths.runtime}/modules"


def of_image_as_it_is(paths: RunPaths) -> tuple[str, str]:
    """Return the folders for the PATH and the PYTHONPATH of a run that has its image as it is."""
    return f"{paths.runtime}/as_is/bin", f"{paths.runtime}/as_is/modules"


def last_folders(paths: RunPaths, python: str) -> tuple[str, ...]:
    """Return the folders at the end of `sys.path` in a run with this version of Python, as the run sees them."""
    return (*([paths.pip] if pip_works(python) else []), f"{paths.runtime}/inside/no_pip")


def copy_pip(home: Home) -> None:
    """Copy pip for runs that are not kept from writing into it; their Python would leave byte code there. Raises OSError.

    Not at the start of a server: it takes a fifth of a second, and most servers need no copy.
    """
    package = own_pip()
    if package is None:
        return
    target = home.runtime / "copied" / "pip"
    with _COPYING:
        if _beginning(target) == _beginning(package):
            return
        beside = _beside(target)
        shutil.copytree(package, beside, ignore=shutil.ignore_patterns("__pycache__"))
        _remove(target)
        beside.rename(target)


def _link(target: Path, source: Path) -> None:
    beside = _beside(target)
    beside.symlink_to(source)
    beside.rename(target)


def _install(target: Path, content: bytes, mode: int) -> None:
    beside = _beside(target)
    beside.write_bytes(content)
    beside.chmod(mode)
    set_aside(target)
    beside.rename(target)


def _beginning(package: Path) -> bytes:
    """Return the first file of a package, which says its version; b"" when there is none."""
    try:
        return (package / "__init__.py").read_bytes()
    except OSError:
        return b""


def _beside(target: Path) -> Path:
    """Return the path of a new file beside this one, and remove what killed servers have left there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*"):
        _remove(left)
    return target.with_name(f".{target.name}.{os.getpid()}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
