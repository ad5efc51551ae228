"""The archive: ended runs that users have taken out of lists and mounts."""

from __future__ import annotations

import time

from sqlalchemy import Connection, func, select, update

from orchestrator.errors import Conflict, NotFound
from orchestrator.states import ACTIVE, State, spoken
from orchestrator.store.database import Database
from orchestrator.store.tables import mounts, runs


class ArchiveStore:
    """The archive of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, number: int) -> None:
        """Take a run out of lists and mounts. Nothing of it is removed.

        Raises:
            NotFound: there is no such run.
            Conflict: it is archived already, has not ended, or a run that has not ended mounts it.
        """
        with self._db.write() as connection:
            state, archived = _state(connection, number)
            if archived:
                raise Conflict(f"Run {number} is already archived.")
            if state in ACTIVE:
                raise Conflict(
                    f"Run {number} is still {spoken(state)}; only runs that have ended can be archived.",
                    f"Wait for it: spell wait {number}; or end it: spell stop {number}",
                )
            mounting = select(func.min(runs.c.number)).join(mounts, mounts.c.run == runs.c.number)
            user = connection.scalar(mounting.where(mounts.c.source_run == number, runs.c.state.in_(list(ACTIVE))))
            if user is not None:
                words = f"Run {number} is mounted by run {user}, which has not ended."
                raise Conflict(words, f"Archive it afterwards: spell wait {user}")
            connection.execute(
                update(runs).where(runs.c.number == number).values(archived=True, archived_at=time.time())
            )

    def remove(self, number: int) -> None:
        """Bring a run back.

        Raises:
            NotFound: there is no such run.
            Conflict: it is not archived.
        """
        with self._db.write() as connection:
            _, archived = _state(connection, number)
            if not archived:
                raise Conflict(f"Run {number} is not archived.", "See which are: spell ps --archived")
            connection.execute(update(runs).where(runs.c.number == number).values(archived=False, archived_at=None))

    def has(self, number: int) -> bool:
        """Whether a run is archived."""
        with self._db.read() as connection:
            return bool(connection.scalar(select(runs.c.archived).where(runs.c.number == number)))

    def numbers(self) -> set[int]:
        """Return the numbers of all archived runs."""
        with self._db.read() as connection:
            return set(connection.scalars(select(runs.c.number).where(runs.c.archived)))


def _state(connection: Connection, number: int) -> tuple[State, bool]:
    row = connection.execute(select(runs.c.state, runs.c.archived).where(runs.c.number == number)).one_or_none()
    if row is None:
        raise NotFound(f"There is no run {number}.", "See them with: spell ps")
    return State(row.state), row.archived
