"""The runs that wait for the machine, and those that hold a part of it. The scheduler reads them at every change.

Queries are built once, because building takes SQLAlchemy longer than running takes SQLite.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, TextClause, and_, bindparam, case, func, not_, select, text

from orchestrator.states import State, StopRequest
from orchestrator.store.database import Database
from orchestrator.store.rows import MachineRequest
from orchestrator.store.tables import runs

_ROWS_AT_ONCE = 20
_LONGEST_PAUSE_S = 60.0  # the limit, even if the clock was set back


def _is_paused() -> ColumnElement[bool]:
    at, now = runs.c.not_before, bindparam("now", type_=Float)
    return and_(at.is_not(None), at > now, at <= now + _LONGEST_PAUSE_S)


def _of_spec(name: str) -> ColumnElement[Any]:
    found = func.json_extract(runs.c.spec, f"$.{name}")
    return case((runs.c.gpus_wanted > 0, found), else_=None).label(name)


def _requests(which: ColumnElement[bool] | TextClause) -> Select[Any]:
    columns = [runs.c[name] for name in "number fence wish cpus memory_bytes gpus_wanted gpus cores".split()]
    # Few runs ask for a kind of GPU, so the spec has it and no column.
    kinds = [_of_spec(name) for name in ("gpu_type", "gpu_memory_bytes")]
    return select(*columns, *kinds).where(which).order_by(runs.c.number).execution_options(yield_per=_ROWS_AT_ONCE)


_QUEUED = _requests(and_(runs.c.state == State.MACHINE_REQUESTED, not_(_is_paused())))
_PAUSED = select(runs.c.number).where(text("not_before IS NOT NULL"), _is_paused())
_OCCUPYING = _requests(text("held"))  # exactly the text of the index
_NEXT_ATTEMPT = select(func.min(runs.c.not_before)).where(text("not_before IS NOT NULL"), _is_paused())


class QueueReader:
    """Reads the demands of runs on the machine."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def queued(self) -> Iterator[MachineRequest]:
        """Yield the runs that wait for a machine, oldest first; reads no further than the caller does."""
        return self._requests(_QUEUED, {"now": time.time()})

    def paused(self) -> set[int]:
        """Return the runs that pause after a failed attempt."""
        with self._db.read() as connection:
            return set(connection.scalars(_PAUSED, {"now": time.time()}))

    def next_attempt_at(self) -> float | None:
        """Return when the next pause after a failed attempt ends; None when no run pauses."""
        with self._db.read() as connection:
            return connection.scalar(_NEXT_ATTEMPT, {"now": time.time()}) or None

    def occupying(self) -> Iterator[MachineRequest]:
        """Yield the runs that hold cores, memory or GPUs now."""
        return self._requests(_OCCUPYING, {})

    def _requests(self, query: Select[Any], values: Mapping[str, Any]) -> Iterator[MachineRequest]:
        with self._db.read() as connection:
            for row in connection.execute(query, values):
                yield MachineRequest(
                    row.number,
                    row.fence,
                    StopRequest(row.wish) if row.wish else None,
                    row.cpus,
                    row.memory_bytes or 0,
                    row.gpus_wanted,
                    tuple(json.loads(row.gpus)),
                    tuple(json.loads(row.cores)),
                    row.gpu_type or "",
                    row.gpu_memory_bytes or 0,
                )
