"""Files and folders that appear whole. While a file is written it has no name, so nothing is left when spell is killed.

Where the disk does not support that, and for folders, an incomplete one is called `.spell-part-…` and locked by the spell
that writes it. The next spell that writes into the same folder removes those that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".spell-part-"


@contextlib.contextmanager
def tidily() -> Iterator[None]:
    """End by an exception, after which nothing incomplete is left, when spell is told to end or its terminal is closed."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    ends = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in ends:  # not those that are ignored, as nohup does
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ends:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def whole_file(place: str, mode: int | None = None) -> Iterator[io.FileIO]:
    """Give a file to write. At the end of the block it lies at `place`; after an error nothing does.

    Args:
        mode: of the file; None for the usual one.
    """
    folder = os.path.dirname(place) or "."
    beside = os.path.join(folder, f"{PREFIX}{os.getpid()}")  # short: the name of the file may have full length
    descriptor = _nameless(folder)
    has_name = descriptor is None
    file = io.FileIO(
        os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666) if descriptor is None else descriptor, "wb"
    )
    try:
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            if not has_name:
                has_name = _name(file.fileno(), place, beside)
            if has_name:
                os.replace(beside, place)
    except BaseException:
        if has_name:
            Path(beside).unlink(missing_ok=True)
        raise


def _nameless(folder: str) -> int | None:
    if not os.path.exists("/proc/self/fd"):  # by which it gets its name
        return None
    with contextlib.suppress(AttributeError, OSError):  # O_TMPFILE is not supported everywhere
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    return None


def _name(descriptor: int, place: str, beside: str) -> bool:
    """Name a nameless file. Returns whether it is `beside`, from where it has to be moved over an earlier file."""
    source = f"/proc/self/fd/{descriptor}"
    try:
        os.link(
            source, place, src_dir_fd=descriptor
        )  # Python calls linkat(2), which can follow links, only with a folder
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        os.link(source, beside, src_dir_fd=descriptor)
        return True
    return False


@contextlib.contextmanager
def part_folder(parent: Path) -> Iterator[Path]:
    """Give a new folder in `parent`, which is removed at the end of the block with all that is still in it."""
    folder = parent / f"{PREFIX}{os.getpid()}"
    sweep(str(parent))
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(folder: str) -> None:
    """Remove what a killed spell has left in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                _remove_if_free(entry)


def _remove_if_free(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(OSError):  # held by a spell that works, or of another person
        lock = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        finally:
            os.close(lock)
