"""Finds outputs that may be removed (of archived runs, and not needed), and snapshots that are still needed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, not_, or_, select, update

from orchestrator.errors import Conflict
from orchestrator.states import ACTIVE, FINAL, State
from orchestrator.store.database import Database
from orchestrator.store.tables import links, mounts, runs, searches, steps, workflows

_ROWS_AT_ONCE = 500
_OVER_AT = func.max(runs.c.ended_at, func.coalesce(runs.c.archived_at, 0.0))


@dataclass(frozen=True, slots=True)
class Needed:
    """Needed snapshots: digests of manifests, and of differences to a commit."""

    trees: set[str]
    blobs: set[str]


class GcStore:
    """Finds what may be removed of the runs of one home, and records what was removed."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def needed(self, before: float) -> Needed:
        """Return the snapshots of workflows and searches, and of all runs except those archived and ended before a moment."""
        found = Needed(set(), set())
        kept = or_(not_(runs.c.archived), runs.c.state.in_(list(ACTIVE)), before < _OVER_AT, runs.c.held)
        with self._db.read() as connection:
            for spec in _specs(connection, kept):
                code = spec.get("code")
                if isinstance(code, dict):
                    found.trees.add(str(code["tree"]))
                    found.blobs.add(str(code["diff"]))
        return found

    def busy_since(self) -> float | None:
        """Return when the first of the runs that have begun, and not ended, was cast; None if there is none."""
        is_busy = or_(and_(runs.c.state.in_(list(ACTIVE)), runs.c.state != State.MACHINE_REQUESTED), runs.c.held)
        with self._db.read() as connection:
            return connection.scalar(select(func.min(runs.c.created_at)).where(is_busy)) or None

    def removable(self) -> list[tuple[int, float]]:
        """Return archived runs whose outputs are not needed, with the time of the last use, the latest first."""
        user = runs.alias()
        mounted_at = (
            select(func.max(user.c.created_at))
            .select_from(mounts.join(user, user.c.number == mounts.c.run))
            .where(mounts.c.source_run == runs.c.number)
            .scalar_subquery()
        )
        used_at = func.max(_OVER_AT, func.coalesce(mounted_at, 0.0)).label("used_at")
        query = select(runs.c.number, used_at).where(_is_removable()).order_by(used_at.desc(), runs.c.number.desc())
        with self._db.read() as connection:
            wanted = _wanted(connection)
            return [(row.number, row.used_at) for row in connection.execute(query) if row.number not in wanted]

    def remove_outputs(self, number: int) -> bool:
        """Record that the outputs of a run are removed, unless they are needed. They cannot be mounted from then on."""
        with self._db.write() as connection:
            if number in _wanted(connection):
                return False
            changed = connection.execute(
                update(runs).where(runs.c.number == number, _is_removable()).values(outputs_removed_at=time.time())
            ).rowcount
        return bool(changed)

    @contextlib.contextmanager
    def held(self, number: int) -> Iterator[bool]:
        """Yield whether the outputs of a run are kept. They are not removed, and the store is not written, in the block."""
        with self._db.write() as connection:
            query = select(runs.c.number).where(runs.c.number == number, runs.c.outputs_removed_at.is_(None))
            yield connection.scalar(query) is not None

    def removed(self) -> list[int]:
        """Return the runs whose outputs are removed."""
        with self._db.read() as connection:
            return list(connection.scalars(select(runs.c.number).where(runs.c.outputs_removed_at.is_not(None))))

    def is_removed(self, number: int) -> bool:
        """Whether the outputs of a run are removed."""
        with self._db.read() as connection:
            query = select(runs.c.number).where(runs.c.number == number, runs.c.outputs_removed_at.is_not(None))
            return connection.scalar(query) is not None

    def archived(self, before: float) -> list[int]:
        """Return the runs that ended and were archived before a moment."""
        query = select(runs.c.number).where(_is_over(), before >= _OVER_AT)
        with self._db.read() as connection:
            return list(connection.scalars(query))

    def outputs_bytes(self) -> int:
        """Return the recorded total size of the outputs of all runs."""
        query = select(func.sum(runs.c.outputs_bytes)).where(runs.c.outputs_removed_at.is_(None))
        with self._db.read() as connection:
            return int(connection.scalar(query) or 0)


def check_sources(connection: Connection, number: int) -> None:
    """Check that no mounted run was archived or removed since a new run was checked.

    Raises:
        Conflict: when one was.
    """
    sources = select(mounts.c.source_run).where(mounts.c.run == number)
    put_away = connection.scalar(select(runs.c.number).where(runs.c.number.in_(sources), runs.c.archived).limit(1))
    if put_away is not None:
        raise Conflict(f"Run {put_away} is archived.", f"Bring it back: spell unarchive {put_away}")
    query = select(runs.c.number).where(runs.c.number.in_(sources), runs.c.outputs_removed_at.is_not(None))
    gone = connection.scalar(query.limit(1))
    if gone is not None:
        raise removed_error(gone)


def removed_error(number: int) -> Conflict:
    """Return the error for outputs that were removed."""
    return Conflict(f"The outputs of run {number} were removed by spell gc.", f"Make them again: spell rerun {number}")


def _is_over() -> ColumnElement[bool]:
    return and_(runs.c.archived, not_(runs.c.held), runs.c.state.in_(list(FINAL)))


def _is_removable() -> ColumnElement[bool]:
    user, open_ = runs.alias(), workflows.c.ended_at.is_(None)
    kept_user = or_(not_(user.c.archived), user.c.state.in_(list(ACTIVE)), user.c.held)
    users = mounts.join(user, user.c.number == mounts.c.run)
    of_open = steps.join(workflows, workflows.c.id == steps.c.workflow)
    return and_(
        _is_over(),
        runs.c.outputs_removed_at.is_(None),
        runs.c.outputs_count > 0,
        not_(exists().select_from(users).where(mounts.c.source_run == runs.c.number, kept_user)),
        not_(exists().select_from(links).where(links.c.source_run == runs.c.number)),
        not_(exists().select_from(of_open).where(steps.c.run == runs.c.number, open_)),
    )


def _wanted(connection: Connection) -> set[int]:
    """Return runs that steps of open workflows, or trials of open searches, will mount."""
    found = set()
    for spec in _pending(connection, of_open=True):
        for resource in (*(mount["resource"] for mount in spec.get("mounts", ())), spec.get("resume", "")):
            parts = str(resource).split("/")
            if parts[0] == "runs" and len(parts) > 1 and parts[1].isdecimal():
                found.add(int(parts[1]))
    return found


def _specs(connection: Connection, kept: ColumnElement[bool]) -> Iterator[dict[str, Any]]:
    query = select(runs.c.spec).where(kept).execution_options(yield_per=_ROWS_AT_ONCE)
    for text in connection.scalars(query):
        yield json.loads(text)
    yield from _pending(connection, of_open=False)


def _pending(connection: Connection, *, of_open: bool) -> list[dict[str, Any]]:
    """Return the specs of steps and searches. Includes searches that have ended, as they may be resumed, unless `of_open`."""
    of_steps = select(steps.c.spec).join(workflows, workflows.c.id == steps.c.workflow)
    of_searches = select(searches.c.spec)
    if of_open:
        of_searches = of_searches.where(searches.c.ended_at.is_(None))
    found: Sequence[str] = [
        *connection.scalars(of_steps.where(workflows.c.ended_at.is_(None))),
        *connection.scalars(of_searches),
    ]
    return [json.loads(text) for text in found]
