"""Opens an SQLite database that a program may be writing, or has left, and that may be anything.

It is never written to, and a query that does not end is ended. A database in WAL mode cannot be opened in a folder that
cannot be written to, such as one of sealed outputs, and neither one whose writer was killed within a transaction: these
are read from a copy.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

_LONGEST_VALUE_BYTES = 16 << 20
_STEPS = 10_000
_SUFFIXES = ("", "-wal", "-journal")
_NEEDS_WRITING = ("unable to open", "readonly")
_LARGEST_COPY_BYTES = 1 << 30
_BUSY_S = 0.2


class Unreadable(Exception):
    """The database cannot be read now; `is_damaged` tells whether it never will. Its text is the reason."""

    def __init__(self, reason: str, *, is_damaged: bool) -> None:
        super().__init__(reason)
        self.is_damaged = is_damaged


@contextlib.contextmanager
def opened(path: Path, limit_s: float) -> Iterator[sqlite3.Connection]:
    """Open a database for reading, for at most `limit_s` of queries. Rows are `sqlite3.Row`.

    Raises:
        Unreadable: also for errors within the block.
    """
    with contextlib.ExitStack() as stack:
        try:
            yield _connected(path, limit_s, stack)
        except sqlite3.Error as error:
            passes = isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error)
            raise Unreadable(str(error), is_damaged=not passes) from error


def _connected(path: Path, limit_s: float, stack: contextlib.ExitStack) -> sqlite3.Connection:
    connection = stack.enter_context(contextlib.closing(_connect(path, limit_s)))
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.OperationalError as error:
        if not any(words in str(error) for words in _NEEDS_WRITING):
            raise
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spell-")))
        for suffix in _SUFFIXES:
            with contextlib.suppress(OSError):
                beside = path.with_name(path.name + suffix)
                if beside.stat().st_size <= _LARGEST_COPY_BYTES:
                    shutil.copyfile(beside, folder / f"copy.db{suffix}")
        connection = stack.enter_context(contextlib.closing(_connect(folder / "copy.db", limit_s, mode="rw")))
    return connection


def _connect(path: Path, limit_s: float, mode: str = "ro") -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=_BUSY_S)
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
