"""Logs as they are read: from an offset on, and without the holes that hold them to their limit.

A run's log is what its command has written, byte for byte. When it grows beyond its limit, its middle becomes a hole
(`supervisor/log_limit`). Offsets stay; in place of the hole a reader gets one line that says how much is not kept.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20
_LOOK_BACK_BYTES = 1 << 30  # a run may make its log as long as files can be, without a single line in it


def read(path: Path, offset: int, limit_bytes: int) -> tuple[bytes, int]:
    """What a log says from an offset on, and where it goes on; b"" when there is no more yet."""
    try:
        with path.open("rb", buffering=0) as file:
            return _read(file.fileno(), offset, limit_bytes, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return b"", offset


def _read(fd: int, offset: int, limit_bytes: int, end: int) -> tuple[bytes, int]:
    if offset >= end:
        return b"", offset
    chunk = os.pread(fd, min(limit_bytes, end - offset), offset)
    # looked at after reading: it may be cut at any moment
    data = _seek(fd, offset, os.SEEK_DATA, end)
    if data > offset:
        data = min(data, end)
        return f"\n--- {data - offset} bytes of the log are not kept: it grew beyond its limit ---\n".encode(), data
    chunk = chunk[: _seek(fd, offset, os.SEEK_HOLE, end) - offset]
    return chunk, offset + len(chunk)


def _seek(fd: int, offset: int, what: int, end: int) -> int:
    """Where data, or a hole, begins; `end` when there is none. As if there was no hole where files have none."""
    try:
        return os.lseek(fd, offset, what)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        return offset if what == os.SEEK_DATA else end


def cut_bytes(path: Path) -> int:
    """How much of a log is not kept, at its first hole; 0 for all others."""
    try:
        with path.open("rb", buffering=0) as file:
            fd, end = file.fileno(), os.fstat(file.fileno()).st_size
            hole = _seek(fd, 0, os.SEEK_HOLE, end) if end else end
            return _seek(fd, hole, os.SEEK_DATA, end) - hole if hole < end else 0
    except FileNotFoundError:
        return 0


def tail(path: Path, lines: int | None, end: int, most_bytes: int = _LOOK_BACK_BYTES) -> Iterator[bytes]:
    """A log's bytes up to offset `end`, or only the last `lines` lines, and `most_bytes`, of them."""
    if not end:
        return
    with path.open("rb") as file:
        offset = 0 if lines is None else _start_of_last(file, lines, end, most_bytes)
        while True:
            chunk, offset = _read(file.fileno(), offset, _CHUNK_BYTES, end)
            if not chunk:
                return
            yield chunk


def _start_of_last(file: BinaryIO, lines: int, end: int, most_bytes: int) -> int:
    """Where the last `lines` lines before offset `end` begin; the file is read backwards, a block at a time."""
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
