"""Walks a folder, hashes a file, removes a tree, whatever modes, depth and names a run gave to its files."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.errors import SaveFailed

_CHUNK_BYTES = 1 << 20
_FICLONE = 0x40049409  # ioctl_ficlone(2); Btrfs, XFS


def below(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything below a folder, by relative path. No recursion, because a run may nest folders very deep."""
    todo = [""]
    while todo:
        below = todo.pop()
        for entry in os.scandir(root / below):
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                todo.append(path)
            yield path, entry.stat(follow_symlinks=False)


def sizes_below(root: Path) -> Iterator[os.stat_result]:
    """Yield the status of every file below a folder, to add up sizes. Leaves out files that vanish meanwhile."""
    todo = [str(root)]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        yield entry.stat(follow_symlinks=False)


def sha256(path: Path, cancelled: Callable[[], bool] = lambda: False, *, durably: bool = False) -> str | None:
    """Return the SHA-256 (hex) of a file's bytes, or of a link's text. None when `cancelled` returned True meanwhile.

    Args:
        durably: also sync the file to the disk.
    """
    if path.is_symlink():
        return hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()
    hashing = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hashing.update(chunk)
            if cancelled():
                return None
        if durably:
            os.fsync(file.fileno())
    return hashing.hexdigest()


def copy_bytes(source: Path, target: Path) -> None:
    """Copy the bytes of a file into a new one. Where the file system can, both share them until one is written.

    Holes stay holes. Mode and times are not copied.
    """
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as written:
        with contextlib.suppress(OSError):  # another file system, or one that cannot share
            fcntl.ioctl(written.fileno(), _FICLONE, read.fileno())
            return
        size, at = os.fstat(read.fileno()).st_size, 0
        while at < size:
            try:
                start = read.seek(at, os.SEEK_DATA)
                at = read.seek(start, os.SEEK_HOLE)
            except (OSError, AttributeError):  # ENXIO: the rest is a hole; macOS has no such offsets
                start, at = (size, size) if hasattr(os, "SEEK_DATA") else (0, size)
            read.seek(start)
            written.seek(start)
            while start < at and (chunk := read.read(min(_CHUNK_BYTES, at - start))):
                _write_all(written, chunk)
                start += len(chunk)
        written.truncate(size)


def _write_all(file: io.FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def remove_tree(path: Path) -> None:
    """Remove a folder that a run left, whatever modes and depth it has. No error when it does not exist.

    Raises:
        SaveFailed: when a part of it cannot be removed.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        with contextlib.suppress(OSError):
            _open_folders(path)
        # find and rm use directory descriptors, so modes, depth and long paths do not stop them
        if _rm(path):
            words = ["find", str(path), "-type", "d", "-execdir", "chmod", "u+rwx", "{}", ";"]  # before it goes inside
            subprocess.run(words, check=False, capture_output=True, env={"PATH": "/usr/bin:/bin"})
            if complaint := _rm(path):
                raise SaveFailed(f"{path} cannot be removed: {complaint}") from None


def _open_folders(root: Path) -> None:
    """Make every folder writable for us. Modes of files stay: hard links may share them with another run."""
    todo = [] if root.is_symlink() else [str(root)]
    while todo:
        folder = todo.pop()
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            todo += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def _rm(path: Path) -> str:
    """Remove a tree. Returns why that failed, or ""."""
    done = subprocess.run(["rm", "-rf", "--", str(path)], check=False, capture_output=True, text=True)
    return (done.stderr.strip() or "rm gave no reason") if done.returncode else ""
