"""The key of an environment: a digest of the content of the request, and of nothing else.

The path of a wheel, the order of lines, the user and the password do not change the key; the content of the wheel does.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from orchestrator.environments.base import Base
from orchestrator.environments.request import Line, Local, ParsedFile, ParsedRequest, Reference
from orchestrator.errors import InvalidConfig
from orchestrator.spec.redaction import without_users

_FORMAT = 1  # raise it when a change in the code makes environments of the same key differ
_KEY_CHARS = 32
_CHUNK_BYTES = 1 << 20
# Files that tools and builds write into a local project. They are not part of its content, so building changes no key.
NOT_CONTENT = re.compile(
    r"(\.git|\.hg|\.svn|\.venv|venv|\.tox|\.nox|__pycache__|\.\w+_cache|build|dist|\.eggs|.*\.egg-info|.*\.py[co])\Z"
)


class ContentHashes:
    """SHA-256 of files and folders, cached while size and times stay the same, so that a known key costs a few stats."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int, int, int], str]] = {}
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """Return the digest of a file, or of all files of a folder with their names.

        Raises:
            InvalidConfig: when it cannot be read.
        """
        try:
            return self._folder(path) if path.is_dir() else self._file(path)
        except OSError as error:
            raise InvalidConfig(f"The requirement {str(path)!r} cannot be read: {error.strerror or error}.") from error

    def _file(self, path: Path) -> str:
        info = path.stat()
        now = (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
        with self._lock:
            before = self._known.get(str(path))
        if before is not None and before[0] == now:
            return before[1]
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        with self._lock:
            self._known[str(path)] = (now, digest.hexdigest())
        return digest.hexdigest()

    def _folder(self, path: Path) -> str:
        digest = hashlib.sha256()
        for file in _content_files(path):
            content = os.readlink(file) if file.is_symlink() else self._file(file)
            digest.update(f"{file.relative_to(path).as_posix()}\0{content}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()


def _content_files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not NOT_CONTENT.match(name))
        for name in sorted((*files, *(name for name in folders if os.path.islink(os.path.join(root, name))))):
            path = Path(root, name)
            if not NOT_CONTENT.match(name) and (path.is_symlink() or path.is_file()):
                yield path


def canonical_python(python: str) -> str:
    """Return the wanted version as the key has it: "3.11" for the server's own, however it was written."""
    version = platform.python_version_tuple()
    if is_own_python(python):
        return f"{sys.implementation.name}-{version[0]}.{version[1]}"
    return python


def is_own_python(python: str) -> bool:
    """Whether the running interpreter fulfils `python` ("", "3", "3.11", "3.11.7")."""
    if not python:
        return True
    wanted = python.split(".")
    return sys.implementation.name == "cpython" and wanted == list(platform.python_version_tuple())[: len(wanted)]


def environment_key(
    asked: ParsedRequest, settings: Sequence[str], hashes: ContentHashes, base: Base | None = None
) -> str:
    """Return the key: 32 hex digits.

    Args:
        asked: the request.
        settings: the user's pip and uv settings that decide which packages are chosen.
        hashes: caches the digests of local files.
        base: what it is built on. With an image, the wanted Python version does not count.
    """
    content: dict[str, object] = {
        "format": _FORMAT,
        "python": canonical_python(asked.python),
        "platform": f"{sys.platform}-{platform.machine()}",
        "lines": sorted({_canonical(line, hashes) for line in asked.lines}),
        "files": [_canonical_file(file, hashes) for file in asked.files if file.lines],
        "settings": [] if asked.bare else [without_users(line) for line in settings],
    }
    if asked.projects:
        content["projects"] = asked.projects.content
    if base is not None and base.image:
        content |= {"python": base.python, "image": base.image, "stands_on": "the image"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_KEY_CHARS]


def _canonical_file(file: ParsedFile, hashes: ContentHashes) -> list[str]:
    return ["constraints" if file.constraints_only else "", *(_canonical(line, hashes) for line in file.lines)]


def _canonical(line: Line, hashes: ContentHashes) -> str:
    if isinstance(line, Reference):
        return f"{line.option} {line.file}"
    if isinstance(line, Local):
        return f"{line.name} @ {local_name(line)}{line.tail} {hashes.of(line.path)}"
    try:
        return without_users(str(Requirement(line)))
    except InvalidRequirement:
        return without_users(line)


def local_name(local: Local) -> str:
    """Return the name of a wheel, which holds version and platform; "" for a folder, whose name means nothing."""
    return "" if local.path.is_dir() else local.path.name
