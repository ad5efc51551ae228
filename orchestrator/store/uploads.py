"""The records of uploads."""

from __future__ import annotations

import json
from collections.abc import Callable

from sqlalchemy import Connection, delete, func, or_, select
from sqlalchemy.dialects.sqlite import insert as upsert

from orchestrator.errors import Conflict
from orchestrator.records.uploads import UploadRecord
from orchestrator.spec.run import to_wire
from orchestrator.states import ACTIVE, SearchState, StepState, WorkflowState
from orchestrator.store.database import Database
from orchestrator.store.tables import mounts, runs, searches, steps, uploads, workflows


class UploadStore:
    """Uploads of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, name: str) -> UploadRecord | None:
        """Return an upload by its name; None when it does not exist."""
        with self._db.read() as connection:
            row = connection.execute(select(uploads).where(uploads.c.name == name)).one_or_none()
        return UploadRecord(**row._mapping) if row else None

    def list(self) -> list[UploadRecord]:
        """Return all uploads, by name."""
        with self._db.read() as connection:
            rows = connection.execute(select(uploads).order_by(uploads.c.name))
            return [UploadRecord(**row._mapping) for row in rows]

    def publish(self, upload: UploadRecord, place: Callable[[], object]) -> None:
        """Record an upload, in place of an earlier one of that name.

        Args:
            place: moves its files to their path; called when no run uses the earlier files, and none can begin to
                use them before this is done.

        Raises:
            Conflict: when an active run mounts the earlier upload.
        """
        with self._db.write() as connection:
            _refuse_used(connection, upload.name)
            _record(connection, upload)
            place()

    def record(self, upload: UploadRecord) -> None:
        """Record an upload whose files are at their path."""
        with self._db.write() as connection:
            _record(connection, upload)

    def remove(self, name: str, take_away: Callable[[], object]) -> None:
        """Remove the record of an upload. `take_away` is as `place` of `publish`; raises as `publish`."""
        with self._db.write() as connection:
            _refuse_used(connection, name)
            connection.execute(delete(uploads).where(uploads.c.name == name))
            take_away()


def _record(connection: Connection, upload: UploadRecord) -> None:
    values = to_wire(upload)
    new = upsert(uploads).values(**values)
    connection.execute(new.on_conflict_do_update(index_elements=[uploads.c.name], set_=values))


def _refuse_used(connection: Connection, name: str) -> None:
    resource = f"uploads/{name}"
    below = func.substr(mounts.c.resource, 1, len(resource) + 1) == f"{resource}/"
    busy = select(runs.c.number).where(runs.c.state.in_(list(ACTIVE)) | runs.c.held)
    query = select(mounts.c.run).where(or_(mounts.c.resource == resource, below), mounts.c.run.in_(busy))
    number = connection.scalar(query.order_by(mounts.c.run).limit(1))
    if number is not None:
        raise Conflict(
            f"Run {number} mounts {resource!r}, and has not ended.",
            f"Wait for it: spell wait {number}; or choose another name.",
        )
    waiting = select(steps.c.workflow, steps.c.spec).join(workflows, workflows.c.id == steps.c.workflow)
    waiting = waiting.where(workflows.c.state == WorkflowState.RUNNING, steps.c.state == StepState.WAITING)
    going_on = select(searches.c.id, searches.c.spec).where(searches.c.state == SearchState.RUNNING)
    for what, query in (("Workflow", waiting), ("Search", going_on)):
        for owner, spec in connection.execute(query):
            if _mounts(json.loads(spec), resource):
                raise Conflict(f"{what} {owner} mounts {resource!r}, and has not ended.", "Choose another name.")


def _mounts(spec: object, resource: str) -> bool:
    """Whether a stored spec, or one inside it, mounts a resource or a part of it."""
    if not isinstance(spec, dict):
        return False
    found = [str(mount.get("resource", "")) for mount in spec.get("mounts") or () if isinstance(mount, dict)]
    if any(f"{item}/".startswith(f"{resource}/") for item in found):
        return True
    return any(_mounts(value, resource) for value in spec.values())
