"""The layer of a run: a virtual environment of its own, on top of the shared environment, to which the run may write.

`pip install` in a command installs here, and so does `uv pip install`. No other run sees it, and it goes with the work
dir. It holds no package at first: a .pth file adds those of the environment, and after them pip, if the environment has
none. The small files of `bin` are copied, because scripts start the Python beside them; other files outside the site
folder (`share`, `lib/*.so`) are links, because programs look for them below `sys.prefix`.

The layer is made for every run by some dozens of file operations. What is in an environment may come from a hostile
build, so nothing of it is read through a link.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.environments.bytecode import MARKER
from orchestrator.environments.installed import read_inside, site_folder, source
from orchestrator.environments.published import DESCRIPTION
from orchestrator.inside.shown_packages import LAYER, SHOWN

_SMALL_BYTES = 16 << 10
_OURS = frozenset({"bin", "lib", "lib64", "pyvenv.cfg", DESCRIPTION, MARKER})
_LONGEST_PLACE = 500
_PIP = '#!/bin/sh\nexec "$(dirname -- "$0")/python" -m pip "$@"\n'
_PACKAGE = re.compile(r"([\w.]+)-([\w.!+]+)\.dist-info\Z", re.ASCII)


def make_layer(layer: Path, environment: Path, seen: str, last: tuple[str, ...]) -> None:
    """Make the layer of a run.

    Args:
        layer: its folder, which does not exist.
        environment: the shared environment.
        seen: the path of the environment, as the run sees it.
        last: folders at the end of `sys.path`, as the run sees them.

    Raises:
        OSError: when it cannot be made.
    """
    for name in ("bin", "lib"):
        if (environment / name).is_symlink():
            raise FileNotFoundError(errno.ENOENT, "is a link", str(environment / name))
    site = site_folder(environment).relative_to(environment)
    (layer / site).mkdir(parents=True)
    (layer / "lib64").symlink_to("lib")
    (layer / "pip.conf").write_text("[install]\nuser = false\n")  # a person's `user = true` fails in a venv
    (layer / "pyvenv.cfg").write_bytes(read_inside(environment, environment / "pyvenv.cfg"))
    # One line, because a Python may read the paths of a .pth file before its code.
    below = f"{seen}/{site}"
    line = f"import site, sys; site.addsitedir({below!a}); sys.path += {list(last)!a}\n"
    (layer / site / LAYER).write_text(line)
    _programs(layer / "bin", environment / "bin", f"{seen}/bin")
    _mirror(layer, environment, seen, _OURS)
    _mirror(layer / "lib", environment / "lib", f"{seen}/lib", frozenset({site.parts[1]}))


def _programs(target: Path, source: Path, seen: str) -> None:
    """Copy the scripts of an environment, and link to its programs."""
    target.mkdir()
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size <= _SMALL_BYTES:
                _copy(entry.path, target / entry.name)
            else:
                os.symlink(f"{seen}/{entry.name}", target / entry.name)
    for name in ("pip", "pip3"):
        with suppress(FileExistsError):
            _write(target / name, _PIP.encode(), 0o755)


def _copy(source: str, target: Path) -> None:
    with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        _write(target, file.read(_SMALL_BYTES), stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o777)


def _write(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def _mirror(target: Path, source: Path, seen: str, left_out: frozenset[str]) -> None:
    """Make the same folders, with links in place of the files."""
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.name in left_out:
                continue
            if entry.is_dir(follow_symlinks=False):
                os.mkdir(target / entry.name)
                _mirror(target / entry.name, Path(entry.path), f"{seen}/{entry.name}", frozenset())
            else:
                os.symlink(f"{seen}/{entry.name}", target / entry.name)


def installed_in(layer: Path) -> list[str]:
    """Return the packages that a run has installed into its layer, sorted. The run has ended.

    They are written `name==version`, `name @ URL`, or `name (from PATH)`: another package may have this name in an index.
    """
    return sorted(set(_installed(layer)), key=str.lower)


def _installed(layer: Path) -> Iterator[str]:
    with suppress(OSError):  # the run may have removed it, or put anything in its place
        for entry in os.scandir(site_folder(layer)):
            found = _PACKAGE.match(entry.name)
            if found and found[1] != "pip" and not os.path.exists(os.path.join(entry.path, SHOWN)):
                yield _written(found[1], found[2], source(layer, Path(entry.path)))


def _written(name: str, version: str, url: str) -> str:
    if not url:
        return f"{name}=={version}"
    place = unquote(urlsplit(url).path) if url.startswith("file:") else url
    if len(place) > _LONGEST_PLACE or not place.isprintable():
        return f"{name} (from elsewhere)"
    return f"{name} (from {place})" if url.startswith("file:") else f"{name} @ {url}"
