"""Files as tar streams, which are made while they are read. Holes of sparse files are not sent, where the reader asks so."""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from orchestrator.content.followed import Member

_CHUNK_BYTES = 1 << 20
_MOST_USTAR_BYTES = 8 << 30  # source: POSIX, ustar: eleven octal digits
_BLOCK_BYTES = 512  # of `st_blocks`, whatever the file system


def tarred(found: Iterable[Member], *, sparse: bool) -> Iterator[bytes]:
    """Yield a tar archive (pax format) of files, folders and links. Unpacked, they are writable.

    Args:
        sparse: leave out holes; https://www.gnu.org/software/tar/manual/html_node/PAX-1.html
    """
    for item in found:
        info = _info(item, item.status)
        if not info.isreg():
            yield _header(info)
        else:
            yield from _file(info, item.place, _data_of(item.place, item.status) if sparse else None)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def tarred_now(found: Iterable[Member], opened: Callable[[str], BinaryIO | None]) -> Iterator[bytes]:
    """As `tarred`, for files that somebody still writes: each has the size that it has when its turn comes.

    Args:
        opened: opens the file at a member's place; None when it is gone, and is left out.
    """
    for item in found:
        info = _info(item, item.status)
        if not info.isreg():
            yield _header(info)
        elif file := opened(item.place):
            with file:
                info = _info(item, os.fstat(file.fileno()))
                yield _header(info)
                yield from read_exactly(file, info.size)
                yield b"\0" * (-info.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _info(item: Member, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(item.path)
    info.mtime, info.mode = int(status.st_mtime), stat.S_IMODE(status.st_mode) | stat.S_IWUSR
    if item.link:
        info.type, info.linkname = tarfile.SYMTYPE, item.link
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    else:
        info.size = status.st_size
    return info


def has_holes(place: Path, status: os.stat_result) -> bool:
    """Whether a file is sparse."""
    return _data_of(str(place), status) is not None


def _data_of(place: str, status: os.stat_result) -> list[tuple[int, int]] | None:
    """Return offset and size of each part of a sparse file that is not a hole; None when it has none."""
    if status.st_blocks * _BLOCK_BYTES >= status.st_size:
        return None
    found, at = [], 0
    with (
        contextlib.suppress(OSError, AttributeError),
        open(place, "rb", buffering=0) as file,
    ):  # ENXIO: the rest is a hole
        while at < status.st_size:
            start = file.seek(at, os.SEEK_DATA)
            at = file.seek(start, os.SEEK_HOLE)
            found.append((start, at - start))
    return None if found == [(0, status.st_size)] else found  # a compressed file has no holes


def _file(info: tarfile.TarInfo, place: str, data: Sequence[tuple[int, int]] | None) -> Iterator[bytes]:
    head, parts = b"", [(0, info.size)]
    if data is not None:
        parts = [*data, (info.size, 0)]
        head = "".join([f"{len(parts)}\n", *(f"{start}\n{size}\n" for start, size in parts)]).encode()
        head += b"\0" * (-len(head) % tarfile.BLOCKSIZE)
        facts = {"major": "1", "minor": "0", "name": info.name, "realsize": str(info.size)}
        info.pax_headers = {f"GNU.sparse.{name}": value for name, value in facts.items()}
        info.size = len(head) + sum(size for _, size in data)
    yield _header(info) + head
    if info.size > len(head):
        with open(place, "rb", buffering=0) as file:
            for start, size in parts:
                file.seek(start)
                yield from _read(file, size)
    yield b"\0" * (-info.size % tarfile.BLOCKSIZE)


def _read(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := file.read(min(size, _CHUNK_BYTES))):
        yield chunk
        size -= len(chunk)


def read_exactly(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield so many bytes of a file, a mebibyte at a time. One that became shorter is filled up with zeros."""
    for chunk in _read(file, size):
        yield chunk
        size -= len(chunk)
    while size > 0:
        yield bytes(min(size, _CHUNK_BYTES))
        size -= _CHUNK_BYTES


def _header(info: tarfile.TarInfo) -> bytes:
    is_plain = info.name.isascii() and len(info.name) < tarfile.LENGTH_NAME and info.size < _MOST_USTAR_BYTES
    if is_plain and not (info.linkname or info.pax_headers):
        # the older form has the same bytes, and takes half the time
        return info.tobuf(tarfile.USTAR_FORMAT, "ascii")
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in fewer, bigger chunks, because passing on a chunk takes longer than its bytes."""
    held: list[bytes] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= _CHUNK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def read_chunks(path: Path | str) -> Iterator[bytes]:
    """Yield a file's bytes, a mebibyte at a time."""
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
