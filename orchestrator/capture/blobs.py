"""The bytes behind a snapshot. They are hashed when it is taken, and checked again when they are sent."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from orchestrator.errors import Conflict, InvalidRepository

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_SNAPSHOT_BYTES = 1 << 30
CHUNK_BYTES = 1 << 20
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"  # source: the Git LFS specification
_LFS_POINTER_MAX_BYTES = 1024
_BIGGEST = 5
_NAMED = 3


def digest_of(chunks: Iterable[bytes]) -> tuple[str, int]:
    """Return the SHA-256 (hex) and the size in bytes of a stream."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def is_lfs_pointer(start: bytes, size: int) -> bool:
    """Whether a blob of this size and beginning is the pointer of a file that Git LFS has not fetched."""
    return size <= _LFS_POINTER_MAX_BYTES and start.startswith(LFS_POINTER)


def path_text(path: bytes) -> str:
    """Return a path that git printed as text.

    Raises:
        InvalidRepository: when it is not UTF-8 or contains a line break, because a snapshot cannot name it.
    """
    try:
        text = path.decode()
    except UnicodeDecodeError as error:
        raise InvalidRepository(f"The file name {path!r} is not UTF-8.", "Rename the file.") from error
    if "\n" in text:
        raise InvalidRepository(f"The file name {text!r} contains a line break.", "Rename the file.")
    return text


def check_size(files: Iterable[tuple[int, bytes]], *, is_tracked: bool = True) -> None:
    """Refuse a snapshot that is too big.

    Args:
        files: sizes in bytes with paths.
        is_tracked: whether they are those of a repository.

    Raises:
        InvalidRepository: names the biggest files.
    """
    ordered = sorted(files, reverse=True)
    total = sum(size for size, _ in ordered)
    if total > MAX_SNAPSHOT_BYTES:
        biggest = ", ".join(f"{path.decode(errors='replace')} ({_readable(size)})" for size, path in ordered[:_BIGGEST])
        raise InvalidRepository(
            f"The files of the {'repository' if is_tracked else 'folder'} hold {_readable(total)}, more than the "
            f"{_readable(MAX_SNAPSHOT_BYTES)} that a snapshot may hold. The biggest: {biggest}.",
            "Name them in .spellignore, upload them once (spell upload), and mount them.",
        )


def _readable(size: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def file_chunks(path: bytes, size: int) -> Iterator[bytes]:
    """Yield the bytes of a regular file of about `size` bytes.

    Does not follow a link. If a FIFO lies in the file's place, it reads as empty and does not block.

    Raises:
        OSError: when it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # One byte more than expected: so a small file takes one read, because a short read is the last one.
        asked, missing = min(size + 1, CHUNK_BYTES), size
        while chunk := os.read(descriptor, asked):
            yield chunk
            missing -= len(chunk)
            if missing <= 0 and len(chunk) < asked:
                return
    finally:
        os.close(descriptor)


def link_chunks(path: bytes) -> Iterator[bytes]:
    """Yield the text of a symbolic link.

    Raises:
        OSError: when it cannot be read.
    """
    yield os.readlink(path)


class _Checked(io.RawIOBase):
    """Reads a blob. It returns the last chunk only if the whole blob has the expected digest."""

    def __init__(self, chunks: Iterator[bytes], digest: str, size: int, name: str) -> None:
        super().__init__()
        self._chunks = chunks
        self._digest = digest
        self._missing = size
        self._name = name
        self._found = hashlib.sha256()
        self._ahead = memoryview(b"")
        self._whole = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if not self._ahead and not self._whole:
            self._ahead = memoryview(self._next())
        room = memoryview(buffer).cast("B")
        count = min(len(room), len(self._ahead))
        room[:count] = self._ahead[:count]
        self._ahead = self._ahead[count:]
        return count

    def _next(self) -> bytes:
        try:
            chunk = next(self._chunks, b"")
            self._missing -= len(chunk)
            self._found.update(chunk)
            if chunk and self._missing > 0:
                return chunk
            self._whole = not self._missing and not next(self._chunks, b"") and self._found.hexdigest() == self._digest
        except OSError as error:
            raise changed(self._name) from error
        if not self._whole:
            raise changed(self._name)
        return chunk


def changed(name: str) -> Conflict:
    """Return the error for a file that changed while it was read."""
    return Conflict(f"{name!r} changed while it was being captured.", "Cast again.")


def checked_reader(chunks: Iterator[bytes], digest: str, size: int, name: str) -> BinaryIO:
    """Return a reader of a blob that must have this digest and size.

    Reading raises `Conflict` instead of returning the last chunk when the blob has changed; its message says `name`.
    """
    return io.BufferedReader(_Checked(chunks, digest, size, name), CHUNK_BYTES)


class Patch:
    """A patch in a file without a name, which disappears with this object.

    Args:
        path: where to make the file; nothing may exist there.
    """

    descriptor = -1

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.unlink(path)

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes. Any number of readers may read at once."""
        offset = 0
        while chunk := os.pread(self.descriptor, CHUNK_BYTES, offset):
            offset += len(chunk)
            yield chunk

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def lfs_warning(pointers: list[str]) -> Iterator[str]:
    """Yield a warning about files whose content Git LFS has not fetched, if there are any."""
    if pointers:
        names = ", ".join(pointers[:_NAMED]) + (", …" if len(pointers) > _NAMED else "")
        many = (
            "1 file is a Git LFS pointer without its"
            if len(pointers) == 1
            else f"{len(pointers)} files are Git LFS pointers without their"
        )
        yield f"{many} content: {names}. Fetch it: git lfs pull"
