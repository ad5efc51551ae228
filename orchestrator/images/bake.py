"""Bakes an environment into an image, for registries. The tar archive is made while it is sent."""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.engine import Engine
from orchestrator.errors import InvalidConfig
from orchestrator.images import intermediate
from orchestrator.images.build import Recipe, build_classic
from orchestrator.images.stream import Watch

TARGET = "/opt/environment"  # not where runs have theirs, which would hide it in runs from a baked image
WORKDIR = "/spell"
_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = 512  # https://www.gnu.org/software/tar/manual/html_node/Standard.html
# https://github.com/distribution/reference/blob/main/reference.go
_WORD = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_TAG = re.compile(rf"(?:[A-Za-z0-9.-]+(?::\d+)?/)?{_WORD}(?:/{_WORD})*(?::\w[\w.-]{{0,127}})?\Z", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
# The image goes to other machines, where the path of our home means nothing.
_LABELS = {"spell.home": "", "spell.key": "", "spell.role": "baked", "spell.base": ""}


@dataclass(frozen=True, slots=True)
class Baking:
    """The inputs of a bake.

    Attributes:
        base: the ID of the image that the environment was built on.
        path: that image's PATH.
        environment: the folder of the environment.
        tag: the name of the new image.
    """

    base: str
    path: str
    environment: Path
    tag: str


def check_tag(tag: str) -> str:
    """Return `tag` if it is a valid name of an image.

    Raises:
        InvalidConfig: otherwise.
    """
    if len(tag) > 255 or not _TAG.match(tag) or _SHA256.match(tag):
        raise InvalidConfig(
            f"{tag!r} is not a valid name of an image.", "Write it as registry.example/name:tag, in lower case."
        )
    return tag


def bake(engine: Engine, baking: Baking, watch: Watch) -> None:
    """Build the image.

    Raises:
        BuildFailed, DiskFull, BuildCancelled: see there.
    """
    text = intermediate.marked(_dockerfile(baking), engine)
    watch.log.say(f"Building the image {baking.tag} with the environment {baking.environment.name}")
    recipe = Recipe(text, baking.tag, labels=_LABELS, base=baking.base, context=_context(text, baking.environment))
    # Only the classic builder always finds an image by its ID alone, and this build runs nothing.
    build_classic(engine, recipe, watch, {})


def _dockerfile(baking: Baking) -> str:
    path = re.sub(r'(["\\$])', r"\\\1", f"{TARGET}/bin:{baking.path}")
    return f'ARG BASE\nFROM ${{BASE}}\nCOPY environment {TARGET}\nENV PATH="{path}" VIRTUAL_ENV="{TARGET}"\nWORKDIR {WORKDIR}\n'


def _context(text: str, environment: Path) -> Iterator[bytes]:
    """Yield a tar archive in pieces. Only one piece of a file is in memory at a time."""
    info = tarfile.TarInfo("Dockerfile")
    info.size = len(text.encode())
    yield _header(info) + text.encode() + _padding(info.size)
    yield from _entries(environment, "environment")
    yield bytes(2 * _BLOCK_BYTES)


def _entries(path: Path, name: str) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    found = path.lstat()
    info.mtime = int(found.st_mtime)  # byte code records the time of its source
    # The image may run as another user than the owner of the files.
    shared = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
    info.mode = shared
    if stat.S_ISLNK(found.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        yield _header(info)
    elif stat.S_ISDIR(found.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        yield _header(info)
        for child in sorted(path.iterdir()):
            yield from _entries(child, f"{name}/{child.name}")
    elif stat.S_ISREG(found.st_mode):
        yield from _file(path, info)


def _file(path: Path, info: tarfile.TarInfo) -> Iterator[bytes]:
    with path.open("rb") as file:
        info.size = os.fstat(file.fileno()).st_size
        yield _header(info)
        left = info.size
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise OSError(f"{path} became shorter while it was read")
            left -= len(chunk)
            yield chunk
    yield _padding(info.size)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK_BYTES)
