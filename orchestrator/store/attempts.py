"""Failed attempts after which their run was tried again."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select

from orchestrator.records.runs import AttemptRecord
from orchestrator.spec.run import to_wire
from orchestrator.store.database import Database
from orchestrator.store.tables import attempts


class AttemptStore:
    """Failed attempts of the runs of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def count(self, number: int) -> int:
        """Return how many attempts of a run have failed and were followed by another one."""
        query = select(func.count()).select_from(attempts).where(attempts.c.run == number)
        with self._db.read() as connection:
            return int(connection.scalar(query) or 0)


def add_attempt(connection: Connection, number: int, failed: AttemptRecord) -> None:
    """Record a failed attempt, in the transaction that sends its run back to the queue."""
    connection.execute(insert(attempts).values(run=number, **to_wire(failed)))
