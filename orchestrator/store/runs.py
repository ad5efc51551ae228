"""Runs as users see them: found by a reference, listed, and in full."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, literal, select

from orchestrator.errors import NotFound
from orchestrator.records.events import EventRecord
from orchestrator.records.run_summary import RunSummary
from orchestrator.records.runs import AttemptRecord, RunRecord
from orchestrator.spec.filters import Filter, Sort
from orchestrator.store import listing
from orchestrator.store.database import Database
from orchestrator.store.imports import origin_of
from orchestrator.store.tables import RESUMED, attempts, events, labels, mounts, projects, runs, trials
from orchestrator.store.trackers import parameters_of

_LISTED = runs.outerjoin(projects, projects.c.id == runs.c.project)
_AT_ONCE = 500  # SQLite takes so many variables in one statement
_EVENTS = select(events).where(events.c.run == bindparam("run"), events.c.id > bindparam("after")).order_by(events.c.id)
_HIDDEN = "fence cpus memory_bytes gpus_wanted metrics_offset held fingerprint wish_reason wish_detail not_before archived_at".split()


class RunReader:
    """Reads the runs of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, reference: str) -> int:
        """Return the number of the run that a user names: `7`, a name, `latest` or `latest~1`.

        If several runs have the name, it means the newest one, and an archived run only if no other has it. `latest`
        is never an archived run.

        Raises:
            NotFound: when it does not exist.
        """
        number: int | None = None
        with self._db.read() as connection:
            if reference.isdecimal() and len(reference) < 19:
                number = connection.scalar(select(runs.c.number).where(runs.c.number == int(reference)))
            elif reference == "latest" or reference.startswith("latest~"):
                back = reference[len("latest~") :] or "0"
                if back.isdecimal() and len(back) < 10:
                    newest = select(runs.c.number).where(runs.c.archived == literal(False))
                    newest = newest.order_by(runs.c.number.desc())
                    number = connection.scalar(newest.offset(int(back)).limit(1))
            elif reference:  # most runs have an empty name
                named = select(runs.c.number).where(runs.c.name == reference)
                number = connection.scalar(named.order_by(runs.c.archived, runs.c.number.desc()).limit(1))
        if number is None:
            raise NotFound(f"There is no run {reference!r}.", "See them with: spell ps")
        return number

    def summaries(
        self,
        wanted: Filter | None = None,
        order: Sort | None = None,
        *,
        limit: int = 50,
        before: int = 0,
        skip: int = 0,
    ) -> list[RunSummary]:
        """Return the last `limit` matching runs in this order; see `store.listing.rows`."""
        with self._db.read() as connection:
            rows = listing.rows(connection, wanted or Filter(), order or Sort(), limit=limit, before=before, skip=skip)
            words = _labels_of(connection, [row.number for row in rows])
            return [_summary(row, words.get(row.number, [])) for row in rows]

    def summary(self, number: int) -> RunSummary:
        """Return one run as a line of the list, archived or not.

        Raises:
            NotFound: when there is no such run.
        """
        with self._db.read() as connection:
            row = listing.one(connection, number)
            if row is None:
                raise NotFound(f"There is no run {number}.", "See them with: spell ps")
            return _summary(row, _labels_of(connection, [number]).get(number, []))

    def record(self, number: int) -> RunRecord:
        """Return the record of one run.

        Raises:
            NotFound: when there is no such run.
        """
        with self._db.read() as connection:
            row = connection.execute(
                select(runs, func.coalesce(projects.c.name, "").label("project_name"))
                .select_from(_LISTED)
                .where(runs.c.number == number)
            ).one_or_none()
            if row is None:
                raise NotFound(f"There is no run {number}.", "See them with: spell ps")
            mounted = connection.execute(
                select(mounts.c.resource, mounts.c.path)
                .where(mounts.c.run == number, mounts.c.position != RESUMED)
                .order_by(mounts.c.position)
            ).all()
            users = connection.execute(
                select(mounts.c.run, (mounts.c.position == RESUMED).label("has_resumed"))
                .where(mounts.c.source_run == number)
                .distinct()
                .order_by(mounts.c.run)
            ).all()
            words = _labels_of(connection, [number]).get(number, [])
            logged = parameters_of(connection, number)
            search = connection.scalar(select(func.min(trials.c.search)).where(trials.c.run == number))
            imported = origin_of(connection, number)
            tried = connection.execute(
                select(attempts).where(attempts.c.run == number).order_by(attempts.c.number)
            ).all()
        fields = dict(row._mapping)
        for key in _HIDDEN:
            del fields[key]
        fields["project"] = fields.pop("project_name")
        for key in ("spec", "gpus", "cores", "packages"):
            fields[key] = json.loads(fields[key])
        return RunRecord(
            **fields,
            labels=words,
            search=search,
            mounts=[dict(item._mapping) for item in mounted],
            mounted_by=[row.run for row in users if not row.has_resumed],
            resumed_by=[row.run for row in users if row.has_resumed],
            attempts=[AttemptRecord(*item[1:]) for item in tried],
            logged=logged,
            imported=imported,
        )

    def events(self, number: int, after: int = 0) -> list[EventRecord]:
        """Return the events of a run, in order; only those after the event with this id."""
        with self._db.read() as connection:
            return [EventRecord(**row._mapping) for row in connection.execute(_EVENTS, {"run": number, "after": after})]


def _summary(row: Row[Any], words: list[str]) -> RunSummary:
    fields = dict(row._mapping)
    fields.pop("sort_value", None)
    return RunSummary(**fields, labels=words)


def _labels_of(connection: Connection, numbers: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for some in range(0, len(numbers), _AT_ONCE):
        these = labels.c.run.in_(numbers[some : some + _AT_ONCE])
        for row in connection.execute(select(labels).where(these).order_by(labels.c.label)):
            found.setdefault(row.run, []).append(row.label)
    return found
