"""Private folders of clients among the files that are temporary on this machine.

Each is locked by its owner while it lives. What a killed one has left is removed when a server starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from orchestrator.errors import SpellError

_PREFIX = "spell-capture-"
_YOUNG_S = 60.0  # the owner of one that is younger may not have locked it yet


def _parent() -> Path:
    # Importing `tempfile` would cost every command 5 ms.
    return Path(os.environ.get("TMPDIR") or "/tmp").absolute()  # noqa: S108 - the folders made there are private


class Scratch:
    """A private folder, removed at the end of the block."""

    def __enter__(self) -> Path:
        self._path = _parent() / f"{_PREFIX}{os.urandom(8).hex()}"
        try:
            self._path.mkdir(mode=0o700)
            self._lock = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            words = f"A temporary folder cannot be made in {str(self._path.parent)!r}: {error.strerror}."
            raise SpellError(words) from error
        return self._path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _remove(self._path)
        os.close(self._lock)


def _remove(path: Path) -> None:
    # Importing `shutil` for this would cost every command 4 ms.
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(os.path.join(folder, name))
        for name in folders:
            os.rmdir(os.path.join(folder, name))
    path.rmdir()


def sweep() -> None:
    """Remove the folders of this user whose owner was killed."""
    with contextlib.suppress(OSError), os.scandir(_parent()) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                with contextlib.suppress(OSError):  # its owner lives, or it is of another user
                    _remove_if_free(entry)


def _remove_if_free(entry: os.DirEntry[str]) -> None:
    found = entry.stat(follow_symlinks=False)
    if found.st_uid != os.getuid() or time.time() - found.st_mtime < _YOUNG_S:
        return
    lock = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(Path(entry.path))
    finally:
        os.close(lock)
