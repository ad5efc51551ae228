"""Room on the disk that is set aside in a file, and let go when the disk is full."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path

_LEAST_BYTES = 64 << 10
_LEFT_BYTES = 256 << 10  # what a run writes until it has ended
_BLOCK_BYTES = 4096


class Room:
    """Some room, as a file.

    Args:
        path: the file.
        size_bytes: how much.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path, self._size_bytes = path, size_bytes

    def release(self) -> None:
        """Let it go, for what has to be written now."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def restore(self) -> None:
        """Set it aside again, when the disk has room for twice as much."""
        if self.size() < self._size_bytes and self.free() > 2 * self._size_bytes:
            self._take(self._size_bytes)

    def restore_what_fits(self, had_bytes: int) -> None:
        """Set aside again what it had, though the disk has room for nothing else, and more where enough is left for others."""
        room = self.size() + self.free()
        fits = min(self._size_bytes, max(min(had_bytes, room), room - _LEFT_BYTES)) // _BLOCK_BYTES * _BLOCK_BYTES
        if fits <= self.size():
            return
        while fits >= _LEAST_BYTES and not self._take(fits):
            fits = fits * 3 // 4 // _BLOCK_BYTES * _BLOCK_BYTES

    def size(self) -> int:
        """Return how much it has now."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def free(self) -> int:
        """Return how much its disk has free; nothing when its folder is gone."""
        try:
            return shutil.disk_usage(self._path.parent).free
        except OSError:
            return 0

    def _take(self, size_bytes: int) -> bool:
        try:
            with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                if sys.platform == "linux":
                    os.posix_fallocate(file.fileno(), 0, size_bytes)
                else:
                    file.write(bytes(size_bytes))
        except OSError:  # somebody else was faster
            self.release()
            return False
        return True
