"""Runs as people see them: found by what they are called, listed, and in full."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from orchestrator.errors import NotFound
from orchestrator.records import AttemptRecord, EventRecord, RunRecord, RunSummary
from orchestrator.store.database import Database
from orchestrator.store.tables import attempts, events, labels, mounts, projects, runs, trials

MAX_PAGE = 10_000
_SUMMARY = [
    runs.c[name]
    for name in (
        "number name state wish command description machine_type executor repository commit dirty archived created_at "
        "started_at ended_at duration_s exit_code signal reason message"
    ).split()
] + [func.coalesce(projects.c.name, "").label("project")]
_LISTED = runs.outerjoin(projects, projects.c.id == runs.c.project)
_HIDDEN = (
    "fence cpus memory_bytes gpus_wanted metrics_offset held fingerprint wish_reason wish_detail not_before".split()
)


class RunReader:
    """Reads runs."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, reference: str) -> int:
        """The number of the run that a person means: `7`, a name, `latest` or `latest~1`.

        A name that several runs bear means the newest of them.

        Raises:
            NotFound: when there is none.
        """
        number: int | None = None
        with self._db.read() as connection:
            if reference.isdecimal() and len(reference) < 19:
                number = connection.scalar(select(runs.c.number).where(runs.c.number == int(reference)))
            elif reference == "latest" or reference.startswith("latest~"):
                back = reference[len("latest~") :] or "0"
                if back.isdecimal() and len(back) < 10:
                    newest = select(runs.c.number).order_by(runs.c.number.desc())
                    number = connection.scalar(newest.offset(int(back)).limit(1))
            elif reference:  # most runs have the empty name
                number = connection.scalar(select(func.max(runs.c.number)).where(runs.c.name == reference))
        if number is None:
            raise NotFound(f"There is no run {reference!r}.", "See them with: spell ps")
        return number

    def summaries(
        self, *, states: Sequence[str] = (), label: Sequence[str] = (), name: str = "", limit: int = 50, before: int = 0
    ) -> list[RunSummary]:
        """Runs that match every filter given (any of several labels), the newest `limit` of them, newest last.

        Args:
            before: only runs with smaller numbers (for paging); 0 for no bound.
        """
        query = select(*_SUMMARY).select_from(_LISTED)
        if states:
            query = query.where(runs.c.state.in_(states))
        if label:
            query = query.where(runs.c.number.in_(select(labels.c.run).where(labels.c.label.in_(label))))
        if name:
            query = query.where(runs.c.name == name)
        if before:
            query = query.where(runs.c.number < before)
        query = query.order_by(runs.c.number.desc()).limit(min(limit, MAX_PAGE))
        with self._db.read() as connection:
            rows = connection.execute(query).all()
            words = _labels_of(connection, [row.number for row in rows])
        return [RunSummary(**row._mapping, labels=words.get(row.number, [])) for row in reversed(rows)]

    def summary(self, number: int) -> RunSummary:
        """One run as a line of the list.

        Raises:
            NotFound: when there is no such run.
        """
        found = self.summaries(limit=1, before=number + 1)
        if not found or found[0].number != number:
            raise NotFound(f"There is no run {number}.")
        return found[0]

    def record(self, number: int) -> RunRecord:
        """All about one run.

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
                select(mounts.c.resource, mounts.c.path).where(mounts.c.run == number).order_by(mounts.c.position)
            ).all()
            users = connection.scalars(
                select(mounts.c.run).where(mounts.c.source_run == number).distinct().order_by(mounts.c.run)
            ).all()
            words = _labels_of(connection, [number]).get(number, [])
            search = connection.scalar(select(func.min(trials.c.search)).where(trials.c.run == number))
            tried = connection.execute(
                select(attempts).where(attempts.c.run == number).order_by(attempts.c.number)
            ).all()
        fields = dict(row._mapping)
        for key in _HIDDEN:
            del fields[key]
        fields["project"] = fields.pop("project_name")
        for key in ("spec", "gpus", "packages"):
            fields[key] = json.loads(fields[key])
        return RunRecord(
            **fields,
            labels=words,
            search=search,
            mounts=[dict(item._mapping) for item in mounted],
            mounted_by=list(users),
            attempts=[AttemptRecord(*item[1:]) for item in tried],
        )

    def events(self, number: int) -> list[EventRecord]:
        """What happened to a run, in order."""
        query = select(events).where(events.c.run == number).order_by(events.c.id)
        with self._db.read() as connection:
            return [EventRecord(**row._mapping) for row in connection.execute(query)]


def _labels_of(connection: Connection, numbers: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    if numbers:
        low, high = min(numbers), max(numbers)  # a range, not a list: a list of numbers may be longer than SQLite takes
        query = select(labels).where(labels.c.run.between(low, high)).order_by(labels.c.label)
        for row in connection.execute(query):
            found.setdefault(row.run, []).append(row.label)
    return found
