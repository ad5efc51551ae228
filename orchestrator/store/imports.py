"""Imported runs: recorded at once in their final state, with their origin, by which a run is imported only once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from orchestrator.records.files import ArtifactRecord
from orchestrator.records.imports import ImportedRun, ImportRecord
from orchestrator.spec.run import RunSpec, to_wire
from orchestrator.states import ENDS
from orchestrator.store.casts import CastBefore
from orchestrator.store.database import Database
from orchestrator.store.projects import open_project
from orchestrator.store.tables import artifacts, events, imports, labels, runs


class ImportStore:
    """The imported runs of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def list(self) -> list[ImportRecord]:
        """Return where all imported runs came from, by number."""
        with self._db.read() as connection:
            rows = connection.execute(select(imports).order_by(imports.c.run))
            return [ImportRecord(**row._mapping) for row in rows]

    def number(self, origin: str) -> int | None:
        """Return the run that was imported from there; None when none was."""
        with self._db.read() as connection:
            return _number(connection, origin)

    def add(
        self, new: ImportedRun, spec: RunSpec, outputs: Sequence[ArtifactRecord], with_run: Callable[[int], None]
    ) -> int:
        """Record an imported run. Returns its number.

        Args:
            spec: that of `new`, checked.
            outputs: its files; the number of their run is not known yet.
            with_run: called in the transaction, with the number.

        Raises:
            CastBefore: when it was imported before.
        """
        now = time.time()
        with self._db.write() as connection:
            if (before := _number(connection, new.origin)) is not None:
                raise CastBefore(before)
            project = open_project(connection, spec.project) if spec.project else None
            columns = _columns(new, spec, outputs, now) | {"project": project}
            number = int(connection.execute(insert(runs), columns).inserted_primary_key[0])  # type: ignore[index]
            origin = ImportRecord(
                run=number, origin=new.origin, tracker=new.tracker, project=new.project, path=new.path, at=now
            )
            connection.execute(insert(imports), to_wire(origin))
            if outputs:
                connection.execute(insert(artifacts), [{**to_wire(item), "run": number} for item in outputs])
            for label in sorted(set(spec.labels)):
                connection.execute(insert(labels), {"run": number, "label": label})
            told = [("notice", "", text) for text in new.notices] + [("state", columns["state"], columns["message"])]
            for kind, state, text in told:
                event = {"run": number, "at": now, "kind": kind, "state": state, "text": text}
                connection.execute(insert(events), event)
            with_run(number)
        return number


def _columns(new: ImportedRun, spec: RunSpec, outputs: Sequence[ArtifactRecord], now: float) -> dict[str, Any]:
    end, started, ended = ENDS[new.reason], new.started_at, new.ended_at
    return {
        "name": spec.name,
        "state": end.state,
        "spec": json.dumps(to_wire(spec)),
        "command": spec.filled_command,
        "description": spec.description,
        "executor": "",
        "machine_type": "",
        "cpus": 0.0,
        "created_at": started or ended or now,
        "started_at": started,
        "ended_at": ended or started or now,
        "duration_s": max(ended - started, 0.0) if started and ended else None,
        "exit_code": new.exit_code,
        "reason": new.reason,
        "message": end.words(new.exit_code, None, new.tracker),
        "commit": new.commit,
        "python": new.python,
        "packages": json.dumps(new.packages),
        "outputs_count": len(outputs),
        "outputs_bytes": sum(item.size for item in outputs),
    }


def origin_of(connection: Connection, number: int) -> ImportRecord | None:
    """Return where a run was imported from; None when it was not imported."""
    row = connection.execute(select(imports).where(imports.c.run == number)).one_or_none()
    return ImportRecord(**row._mapping) if row else None


def _number(connection: Connection, origin: str) -> int | None:
    return connection.scalar(select(imports.c.run).where(imports.c.origin == origin))
