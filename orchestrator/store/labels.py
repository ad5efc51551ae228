"""Labels: words that users put on runs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.sqlite import insert as upsert

from orchestrator.errors import Conflict, NotFound
from orchestrator.spec.run import MAX_LABELS
from orchestrator.store.database import Database
from orchestrator.store.tables import labels, runs


class LabelStore:
    """Labels of the runs of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def label(self, number: int, add: Sequence[str], remove: Sequence[str]) -> None:
        """Add and remove labels of a run. Adding a label that it has already is no error.

        Raises:
            NotFound: when the run does not exist, or lacks a label that should be removed.
            Conflict: when it would have too many labels.
        """
        with self._db.write() as connection:
            if connection.scalar(select(runs.c.number).where(runs.c.number == number)) is None:
                raise NotFound(f"There is no run {number}.", "See them with: spell ps")
            for label in remove:
                this = (labels.c.run == number, labels.c.label == label)
                if not connection.execute(delete(labels).where(*this)).rowcount:
                    raise NotFound(f"Run {number} has no label {label!r}.", f"See its labels: spell info {number}")
            for label in add:
                connection.execute(upsert(labels).values(run=number, label=label).on_conflict_do_nothing())
            count = connection.scalar(select(func.count()).where(labels.c.run == number)) or 0
            if add and count > MAX_LABELS:
                raise Conflict(f"A run can have at most {MAX_LABELS} labels.")
