"""Opens an SQLite database that a program may be writing, or has left, and that may be anything.

It is never written to, and a query that does not end is ended. A database in WAL mode cannot be opened in a folder that
cannot be written to, such as one of sealed outputs, and neither one whose writer was killed within a transaction: these
are read from a copy.

SQLite opens a database and the files beside it without asking what they are, and waits for ever at a pipe. So what is no
regular file is refused, and the files are opened in a thread of its own: if a program puts a pipe there just then, that
thread waits, not its caller.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

_LONGEST_VALUE_BYTES = 16 << 20
_STEPS = 10_000
_SUFFIXES = ("", "-wal", "-journal")
_OPENED_SUFFIXES = (*_SUFFIXES, "-shm")
_NEEDS_WRITING = ("unable to open", "readonly")
_LARGEST_COPY_BYTES = 1 << 30
_BUSY_S = 0.2
_OPENING_S = 2.0


class Unreadable(Exception):
    """The database cannot be read now; `is_damaged` tells whether it never will. Its text is the reason."""

    def __init__(self, reason: str, *, is_damaged: bool) -> None:
        super().__init__(reason)
        self.is_damaged = is_damaged


@contextlib.contextmanager
def opened(path: Path, limit_s: float, copy_bytes: int = _LARGEST_COPY_BYTES) -> Iterator[sqlite3.Connection]:
    """Open a database for reading, for at most `limit_s` of queries, or a copy of at most `copy_bytes`. Rows are `sqlite3.Row`.

    Raises:
        Unreadable: also for errors within the block.
    """
    with contextlib.ExitStack() as stack:
        try:
            yield _connected(path, limit_s, copy_bytes, stack)
        except sqlite3.Error as error:
            passes = isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error)
            raise Unreadable(str(error), is_damaged=not passes) from error


def _connected(path: Path, limit_s: float, copy_bytes: int, stack: contextlib.ExitStack) -> sqlite3.Connection:
    path = Path(os.path.realpath(path))  # as SQLite does: the other files lie beside this one
    _check_regular(path)
    try:
        return stack.enter_context(contextlib.closing(_opened_aside(path, limit_s)))
    except sqlite3.OperationalError as error:
        if not any(words in str(error) for words in _NEEDS_WRITING):
            raise
    _check_size(path, copy_bytes)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spell-")))
    for suffix in _SUFFIXES:
        with contextlib.suppress(OSError):
            _copy(path.with_name(path.name + suffix), folder / f"copy.db{suffix}")
    return stack.enter_context(contextlib.closing(_connect(folder / "copy.db", limit_s, mode="rw")))


def _check_regular(path: Path) -> None:
    for suffix in _OPENED_SUFFIXES:
        beside = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(beside).st_mode):
                raise Unreadable(f"{beside.name} is not a regular file", is_damaged=True)


def _check_size(path: Path, most_bytes: int) -> None:
    size = 0
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            size += os.lstat(path.with_name(path.name + suffix)).st_size
    if size > most_bytes:
        reason = f"it can be read from a copy only, and has {size >> 20} MiB: more than {most_bytes >> 20}"
        raise Unreadable(reason, is_damaged=False)


def _opened_aside(path: Path, limit_s: float) -> sqlite3.Connection:
    """Connect in another thread, and begin a transaction there: SQLite opens no file by its name within one."""
    opened: list[sqlite3.Connection] = []
    errors: list[Exception] = []

    def open_it() -> None:
        try:
            opened.append(_begun(path, limit_s))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=open_it, name="open database", daemon=True)
    thread.start()
    thread.join(_OPENING_S)
    if errors:
        raise errors[0]
    if not opened:
        raise Unreadable(f"it could not be opened within {_OPENING_S:g} s", is_damaged=True)
    return opened[0]


def _begun(path: Path, limit_s: float) -> sqlite3.Connection:
    connection = _connect(path, limit_s)
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _copy(source: Path, target: Path) -> None:
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_COPY_BYTES:
            with target.open("xb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)


def _connect(path: Path, limit_s: float, mode: str = "ro") -> sqlite3.Connection:
    address = f"file:{quote(str(path).encode('utf-8', 'surrogateescape'))}?mode={mode}"
    connection = sqlite3.connect(address, uri=True, timeout=_BUSY_S, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE_BYTES)
    until = time.monotonic() + limit_s
    connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def tables(connection: sqlite3.Connection) -> dict[str, set[str]]:
    """Return the names of the tables of a database, and of the columns of each."""
    names = [row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: {row["name"] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))}
        for name in names
    }
