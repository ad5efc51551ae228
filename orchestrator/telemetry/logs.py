"""Reads logs, from an offset on, and without the hole in the middle of a log that grew too long.

A run's log holds the output of its command, byte for byte. When it grows above its limit, its middle becomes a hole
(`supervisor/log_limit`). Offsets stay the same; in place of the hole a reader gets one line with the number of lost bytes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20
_LOOK_BACK_BYTES = 1 << 30  # a run may make its log very long without a single line end


def read(path: Path, offset: int, limit_bytes: int) -> tuple[bytes, int]:
    """Return the bytes of a log from an offset on, and the next offset; b"" when there are no more yet."""
    try:
        with path.open("rb", buffering=0) as file:
            return _read(file.fileno(), offset, limit_bytes, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return b"", offset


def _read(fd: int, offset: int, limit_bytes: int, end: int) -> tuple[bytes, int]:
    if offset >= end:
        return b"", offset
    chunk = os.pread(fd, min(limit_bytes, end - offset), offset)
    # checked after reading, because the log may be cut at any moment
    data = _seek(fd, offset, os.SEEK_DATA, end)
    if data > offset:
        data = min(data, end)
        return f"\n--- {data - offset} bytes of the log are not kept: it grew beyond its limit ---\n".encode(), data
    chunk = chunk[: _seek(fd, offset, os.SEEK_HOLE, end) - offset]
    return chunk, offset + len(chunk)


def _seek(fd: int, offset: int, what: int, end: int) -> int:
    """Return where data, or a hole, begins; `end` when none follows. File systems without holes count as all data."""
    try:
        return os.lseek(fd, offset, what)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        return offset if what == os.SEEK_DATA else end


def cut_bytes(path: Path) -> int:
    """Return how many bytes of a log were dropped, at its first hole; 0 for a log without a hole."""
    try:
        with path.open("rb", buffering=0) as file:
            fd, end = file.fileno(), os.fstat(file.fileno()).st_size
            hole = _seek(fd, 0, os.SEEK_HOLE, end) if end else end
            return _seek(fd, hole, os.SEEK_DATA, end) - hole if hole < end else 0
    except FileNotFoundError:
        return 0


def tail(path: Path, lines: int | None, end: int, most_bytes: int = _LOOK_BACK_BYTES) -> Iterator[bytes]:
    """Yield a log's bytes up to offset `end`, or only the last `lines` lines, at most `most_bytes`."""
    yield from between(path, start_of_last(path, lines, end, most_bytes), end)


def start_of_last(path: Path, lines: int | None, end: int, most_bytes: int = _LOOK_BACK_BYTES) -> int:
    """Return where the last `lines` lines before offset `end` begin, at most `most_bytes`; 0 without `lines`."""
    if lines is None or not end:
        return 0
    with path.open("rb") as file:
        return _start_of_last(file, lines, end, most_bytes)


def between(path: Path, offset: int, end: int) -> Iterator[bytes]:
    """Yield a log's bytes from one offset to another."""
    if offset >= end:
        return
    with path.open("rb") as file:
        while True:
            chunk, offset = _read(file.fileno(), offset, _CHUNK_BYTES, end)
            if not chunk:
                return
            yield chunk


def _start_of_last(file: BinaryIO, lines: int, end: int, most_bytes: int) -> int:
    """Return where the last `lines` lines before offset `end` begin. Reads the file backwards, a block at a time."""
    if lines == 0:
        return end
    position = end - 1  # a newline at the very end does not begin a line
    missing, first = lines, max(0, end - min(most_bytes, _LOOK_BACK_BYTES))
    while position > first:
        size = min(_CHUNK_BYTES, position - first)
        position -= size
        file.seek(position)
        block = file.read(size)
        found = size
        while (found := block.rfind(b"\n", 0, found)) >= 0:
            missing -= 1
            if missing == 0:
                return position + found + 1
    return first
