"""Opens the files of a run that is writing them. What it puts in their place meanwhile must not lead out of its work dir."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO


def opened(root: Path, path: str) -> BinaryIO:
    """Open a regular file below `root` for reading.

    Raises:
        OSError: when it is gone, is something else, or lies elsewhere.
    """
    fd = os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not block us
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not _lies_below(root, fd):
            raise OSError(f"{path} is not a file of the work dir")
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def _lies_below(root: Path, fd: int) -> bool:
    if sys.platform != "linux":
        return True
    return os.readlink(f"/proc/self/fd/{fd}").startswith(f"{os.path.realpath(root)}/")


def status(root: Path, path: str) -> os.stat_result | None:
    """Return the status of a regular file; None when there is none."""
    try:
        found = os.lstat(root / path)
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def is_inside(root: Path, path: str) -> bool:
    """Whether a path leads to a place below `root`, through links too: for what cannot be opened by `opened`."""
    return os.path.realpath(root / path).startswith(f"{os.path.realpath(root)}/")


def tidy(root: Path, path: str) -> None:
    """Remove the empty log that reading makes beside a database in WAL mode, which no process has open any more."""
    log = status(root, f"{path}-wal")
    if log and not log.st_size and is_inside(root, path):
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(root / f"{path}{suffix}")
