"""Reads mounts for many runs at once, and the data of a run that `spell diff` compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, select

from orchestrator.store.database import Database
from orchestrator.store.tables import RESUMED, artifacts, links, metric_summaries, mounts, runs, steps

_AT_ONCE = 500  # numbers in one query
_SEEN = 300  # shown characters of a command


class MountRow(NamedTuple):
    """A mount: run `run` sees `resource` at `path`; `source_run` is the run of the resource, if any.

    `copied`: it is no mount, but the folder that the run began with.
    """

    run: int
    resource: str
    path: str
    source_run: int | None
    copied: bool


class OutputRow(NamedTuple):
    """A kept output, with fields of `ArtifactRecord`."""

    path: str
    mode: str
    size: int
    sha256: str | None


class RunRow(NamedTuple):
    """The columns of a run in a lineage."""

    number: int
    name: str
    state: str
    exit_code: int | None
    command: str
    archived: bool
    outputs_count: int
    rerun_of: int | None


class LineageStore:
    """Reads mounts of many runs, and the outputs and metrics of one."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def mounts_of(self, numbers: Iterable[int]) -> Iterator[MountRow]:
        """Yield the mounts of these runs."""
        return self._mounts(mounts.c.run, sorted(numbers))

    def mounts_from(self, numbers: Iterable[int]) -> Iterator[MountRow]:
        """Yield the mounts of the outputs of these runs."""
        return self._mounts(mounts.c.source_run, sorted(numbers))

    def _mounts(self, column: ColumnElement[int | None], numbers: Sequence[int]) -> Iterator[MountRow]:
        wanted = select(
            mounts.c.run, mounts.c.resource, mounts.c.path, mounts.c.source_run, mounts.c.position == RESUMED
        )
        for some in _parts(numbers):
            query = wanted.where(column.in_(some)).order_by(mounts.c.run, mounts.c.position)
            with self._db.read() as connection:
                rows = connection.execute(query).all()
            yield from (MountRow(*row) for row in rows)

    def runs(self, numbers: Iterable[int]) -> dict[int, RunRow]:
        """Return those of these runs that exist."""
        columns = [runs.c[name] for name in RunRow._fields]
        found = {}
        for some in _parts(sorted(numbers)):
            with self._db.read() as connection:
                for row in connection.execute(select(*columns).where(runs.c.number.in_(some))):
                    found[row.number] = RunRow(*row)._replace(command=row.command[:_SEEN])
        return found

    def steps(self, numbers: Iterable[int]) -> dict[int, tuple[int, str]]:
        """Return the workflow and step that cast each of these runs, if any."""
        found: dict[int, tuple[int, str]] = {}
        for some in _parts(sorted(numbers)):
            query = select(steps.c.run, steps.c.workflow, steps.c.name).where(steps.c.run.in_(some), ~steps.c.reused)
            with self._db.read() as connection:
                found |= {row.run: (row.workflow, row.name) for row in connection.execute(query)}
        return found

    def links(self, numbers: Iterable[int]) -> dict[int, list[str]]:
        """Return the names of links to the outputs of these runs."""
        found: dict[int, list[str]] = {}
        for some in _parts(sorted(numbers)):
            query = (
                select(links.c.source_run, links.c.alias).where(links.c.source_run.in_(some)).order_by(links.c.alias)
            )
            with self._db.read() as connection:
                for row in connection.execute(query):
                    found.setdefault(row.source_run, []).append(row.alias)
        return found

    def outputs(self, number: int) -> dict[str, OutputRow]:
        """Return the kept outputs of a run, by path."""
        columns = [artifacts.c[name] for name in OutputRow._fields]
        query = select(*columns).where(artifacts.c.run == number, artifacts.c.note == "").order_by(artifacts.c.path)
        with self._db.read() as connection:
            return {row[0]: OutputRow(*row) for row in connection.execute(query)}

    def last_metrics(self, number: int) -> dict[str, float]:
        """Return the last value of each metric of a run."""
        query = select(metric_summaries.c.name, metric_summaries.c.last).where(metric_summaries.c.run == number)
        with self._db.read() as connection:
            return {row.name: row.last for row in connection.execute(query)}


def _parts(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[start : start + _AT_ONCE] for start in range(0, len(numbers), _AT_ONCE))
