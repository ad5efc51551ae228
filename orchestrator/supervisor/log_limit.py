"""Keeps a log from filling the disk: above its limit, the middle of the log is dropped, and the command goes on.

The command writes to the file directly. When it grows above the limit, the first quarter of the limit and the last half are
kept; the rest becomes a hole in the file, which takes no disk space and leaves offsets unchanged. Readers skip it
(`orchestrator.telemetry.logs`). Where files cannot have holes, all but the first quarter is dropped. Standard library only.
"""

from __future__ import annotations

import ctypes
import os

_BLOCK_BYTES = 4096
_FASTEST_BYTES_PER_S = 1 << 30  # the fastest expected writer
_SHORTEST_S, _LONGEST_S = 0.02, 1.0
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h


class LogLimit:
    """Keeps a log below its limit, as long as `hold` is called.

    Args:
        fd: the log, opened for writing.
        limit_bytes: the most disk space that it may take; None for no limit.
    """

    def __init__(self, fd: int, limit_bytes: int | None) -> None:
        self._fd, self._limit_bytes = fd, limit_bytes

    def hold(self) -> float | None:
        """Cut the log if it is too long. Returns after how many seconds to check again; None for never."""
        if self._limit_bytes is None:
            return None
        info = os.fstat(self._fd)
        held_bytes = min(info.st_size, info.st_blocks * 512)  # a command may extend its log by a hole
        if held_bytes > self._limit_bytes:
            self._cut(info.st_size, self._limit_bytes)
            return _SHORTEST_S
        left_bytes = self._limit_bytes - held_bytes
        return max(_SHORTEST_S, min(_LONGEST_S, left_bytes / _FASTEST_BYTES_PER_S))

    def _cut(self, size_bytes: int, limit_bytes: int) -> None:
        start = limit_bytes // 4 // _BLOCK_BYTES * _BLOCK_BYTES
        end = (size_bytes - limit_bytes // 2) // _BLOCK_BYTES * _BLOCK_BYTES
        if not _punch(self._fd, start, end - start):
            os.ftruncate(self._fd, start)


def _punch(fd: int, start: int, length: int) -> bool:
    try:
        fallocate = ctypes.CDLL(None).fallocate
        arguments = (ctypes.c_int(fd), ctypes.c_int(_KEEP_SIZE | _PUNCH_HOLE))
        return bool(fallocate(*arguments, ctypes.c_int64(start), ctypes.c_int64(length)) == 0)
    except (AttributeError, OSError):
        return False
