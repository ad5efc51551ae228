"""What people put on runs afterwards: labels, and that they are archived."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from orchestrator.errors import Conflict, NotFound
from orchestrator.spec.run import MAX_LABELS
from orchestrator.states import ACTIVE, State, spoken
from orchestrator.store.database import Database
from orchestrator.store.tables import labels, mounts, runs


class MarkStore:
    """Labels and archiving of the runs of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def label(self, number: int, add: Sequence[str], remove: Sequence[str]) -> None:
        """Add and remove labels of a run. Adding a label that it has already is no error.

        Raises:
            NotFound: when the run does not exist, or lacks a label that should be removed.
            Conflict: when it would have too many labels.
        """
        with self._db.write() as connection:
            _state(connection, number)
            for label in remove:
                this = (labels.c.run == number, labels.c.label == label)
                if not connection.execute(delete(labels).where(*this)).rowcount:
                    raise NotFound(f"Run {number} has no label {label!r}.")
            for label in add:
                connection.execute(upsert(labels).values(run=number, label=label).on_conflict_do_nothing())
            count = connection.scalar(select(func.count()).where(labels.c.run == number)) or 0
            if add and count > MAX_LABELS:
                raise Conflict(f"A run can have at most {MAX_LABELS} labels.")

    def archive(self, number: int) -> None:
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

    def unarchive(self, number: int) -> None:
        """Bring a run back.

        Raises:
            NotFound: there is no such run.
            Conflict: it is not archived.
        """
        with self._db.write() as connection:
            _, archived = _state(connection, number)
            if not archived:
                raise Conflict(f"Run {number} is not archived.")
            connection.execute(update(runs).where(runs.c.number == number).values(archived=False, archived_at=None))

    def is_archived(self, number: int) -> bool:
        """Whether a run is archived."""
        with self._db.read() as connection:
            return bool(connection.scalar(select(runs.c.archived).where(runs.c.number == number)))

    def archived(self) -> set[int]:
        """The numbers of all runs that are archived."""
        with self._db.read() as connection:
            return set(connection.scalars(select(runs.c.number).where(runs.c.archived)))


def _state(connection: Connection, number: int) -> tuple[State, bool]:
    row = connection.execute(select(runs.c.state, runs.c.archived).where(runs.c.number == number)).one_or_none()
    if row is None:
        raise NotFound(f"There is no run {number}.", "See them with: spell ps")
    return State(row.state), row.archived
