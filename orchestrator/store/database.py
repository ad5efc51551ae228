"""Opens the SQLite file: write-ahead log, one writer at a time, migrations, and its errors as ours."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import DiskFull, HomeUnusable, StoreBusy
from orchestrator.home import check_room, set_aside
from orchestrator.store import tables
from orchestrator.store.room import Room

_BUSY_TIMEOUT_S = 30
_BALLAST_BYTES = 2 << 20
_RESERVE_BYTES = 1 << 20
_TIGHT_BYTES = 1 << 20
_ALEMBIC = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"  # as Alembic makes it
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)  # an exceeded quota gives the latter


class Database:
    """One SQLite file, for many threads and processes.

    Raises:
        HomeUnusable: when it cannot be opened, is damaged, or was made by a newer version.
        DiskFull: when SQLite cannot make the files that it keeps beside an open one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock, self._leaving_lock = threading.Lock(), threading.Lock()
        self._leaving = self._had_bytes = 0
        ballast, reserve = path.with_suffix(".ballast"), path.with_suffix(".reserve")
        self._ballast, self._reserve = Room(ballast, _BALLAST_BYTES), Room(reserve, _RESERVE_BYTES)
        for beside in (ballast, reserve, Path(f"{path}-wal"), Path(f"{path}-shm")):
            set_aside(beside)
        self._reader = self._engine("BEGIN", pool_size=8)
        self._writer = self._engine("BEGIN IMMEDIATE", pool_size=1)
        try:
            self._open()
        except (sqlite3.Error, DBAPIError) as error:
            if _code(error) not in (*_FULL, sqlite3.SQLITE_CANTOPEN):
                raise self._unusable(error) from error
            self._open_without_ballast()
        self.keep_room()

    def _open(self) -> None:
        self._migrate()
        with (
            self.read() as connection
        ):  # a first connection, which stays, so that SQLite keeps its files beside this one
            connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1")

    def _open_without_ballast(self) -> None:
        self._ballast.release()
        try:
            self._open()
        except (sqlite3.Error, DBAPIError) as error:
            check_room(self._path.parent)
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error | DBAPIError) -> HomeUnusable:
        why = error.orig if isinstance(error, DBAPIError) else error
        return HomeUnusable(f"The store {self._path} cannot be opened: {why}.", "Check that it is a store of spell.")

    def _engine(self, begin: str, pool_size: int) -> Engine:
        engine = create_engine(
            f"sqlite:///{self._path}",
            pool_size=pool_size,
            max_overflow=32,
            connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False},
        )

        @event.listens_for(engine, "connect")
        def _configure(connection: sqlite3.Connection, _record: object) -> None:
            connection.isolation_level = None  # we say BEGIN ourselves
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA journal_size_limit=67108864")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection with a consistent view of the store."""
        with self._reader.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection in a transaction: when the block ends, all of it is durable, or nothing of it.

        Raises:
            DiskFull: when the disk is full.
            StoreBusy: when another program holds the file for too long.
        """
        with self._write_lock:
            try:
                with self._writer.begin() as connection:
                    yield connection
            except DBAPIError as error:
                code = _code(error)
                if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise StoreBusy(f"Another program holds {self._path}.", "Try again when it has ended.") from error
                if code not in _FULL:
                    raise
                # The reserved space lets the next transaction record that the disk is full.
                self._ballast.release()
                raise DiskFull(
                    f"The disk of {self._path.parent} is full.", "Free some space. Runs go on by themselves."
                ) from error
            self.keep_room()

    def keep_room(self) -> None:
        """Set room aside again, if there is enough."""
        if not self._leaving:
            self._reserve.restore()
        self._ballast.restore()

    @contextlib.contextmanager
    def way_out(self) -> Iterator[None]:
        """Let what frees disk space, or ends what takes it, use the room that is kept for this, while the block runs."""
        with self._leaving_lock:
            self._leaving += 1
            if self._leaving == 1:
                self._had_bytes = self._reserve.size()
            if self._reserve.free() < _TIGHT_BYTES:
                self._reserve.release()
        try:
            yield
        finally:
            with self._leaving_lock:
                self._leaving -= 1
                if not self._leaving:  # else it would be taken from the others
                    self._reserve.restore_what_fits(self._had_bytes)

    def close(self) -> None:
        """Close all connections."""
        self._reader.dispose()
        self._writer.dispose()

    def _migrate(self) -> None:
        version = self._version()
        if version == tables.HEAD or (version is None and self._make()):
            return
        from orchestrator.store.migrate import upgrade  # 159 ms: alembic; most stores are up to date

        upgrade(self._path, version)

    def _make(self) -> bool:
        """Make the tables of a new store, as all migrations do, in a tenth of their time. Returns False when the file has
        tables."""
        with self._writer.begin() as connection:
            if connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1").first():
                return False
            tables.metadata.create_all(connection)
            connection.exec_driver_sql(_ALEMBIC)
            connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (tables.HEAD,))
        return True

    def _version(self) -> str | None:
        connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S)
        try:
            known = connection.execute("SELECT name FROM sqlite_master WHERE name='alembic_version'").fetchone()
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
        finally:
            connection.close()
        return str(row[0]) if row else None


def _code(error: sqlite3.Error | DBAPIError) -> int:
    """Return the primary result code; https://sqlite.org/rescode.html"""
    return int(getattr(getattr(error, "orig", error), "sqlite_errorcode", 0) or 0) & 0xFF
