"""What runs have logged by trackers: how far each of their files was read, whose metric is whose, parameters.

A metric belongs to one source: to `send_metric`, or to a run of a tracker. Another source that uses its name gets a name
that says so: see `store/metrics.py`. In a later attempt the metric goes over to the source of that tracker which uses its name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from orchestrator.records.metrics import MetricRecord
from orchestrator.store.database import Database
from orchestrator.store.metrics import insert_metrics
from orchestrator.store.tables import logged_parameters, metric_summaries, metrics, tracker_files, tracker_sources


@dataclass(frozen=True, slots=True)
class TrackerFile:
    """How far a file of an attempt was read; `inode` tells it from another file that takes its path later."""

    path: str
    attempt: int
    inode: int
    position: int


@dataclass(frozen=True, slots=True)
class TrackerBatch:
    """What one source has logged.

    Attributes:
        source: TRACKER:WHICH, such as `tensorboard:logs/train`.
        prefix: goes before its names if the source is new.
        metrics: in the order of writing, without the prefix.
        parameters: by name.
        counts: how many of each other kind there were: histogram, image, …
        void_from: its earlier values from this step on are void; None for none.
    """

    source: str
    prefix: str = ""
    metrics: Sequence[MetricRecord] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    void_from: int | None = None


@dataclass(frozen=True, slots=True)
class TrackerSource:
    """One source: the prefix of its names, how many of each other kind were logged, and the last attempt that logged."""

    source: str
    prefix: str
    counts: Mapping[str, int]
    attempt: int


class TrackerStore:
    """The files of trackers of the runs of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def files(self, number: int) -> dict[str, TrackerFile]:
        """Return how far each file of a run was read, by path."""
        query = select(tracker_files).where(tracker_files.c.run == number)
        with self._db.read() as connection:
            return {
                row.path: TrackerFile(row.path, row.attempt, row.inode, row.position)
                for row in connection.execute(query)
            }

    def sources(self, number: int) -> list[TrackerSource]:
        """Return the sources of a run."""
        query = select(tracker_sources).where(tracker_sources.c.run == number).order_by(tracker_sources.c.source)
        with self._db.read() as connection:
            return [
                TrackerSource(row.source, row.prefix, json.loads(row.counts), row.attempt)
                for row in connection.execute(query)
            ]

    def parameters(self, number: int) -> dict[str, str]:
        """Return the parameters that a run has logged."""
        with self._db.read() as connection:
            return parameters_of(connection, number)

    def add(
        self, number: int, before: TrackerFile | None, after: TrackerFile, batches: Sequence[TrackerBatch]
    ) -> dict[str, str] | None:
        """Record what was read of a file between two positions; None when another caller has recorded it.

        Args:
            before: as `files` told it; None if it did not know the file.

        Returns:
            the names that belonged to another source, and those that were used instead.
        """
        renamed: dict[str, str] = {}
        with self._db.write() as connection:
            if not _advance(connection, number, before, after):
                return None
            for batch in batches:
                prefix = _note_source(connection, number, batch, after.attempt)
                if batch.void_from is not None:
                    _void(connection, number, batch.source, batch.void_from)
                items = [
                    MetricRecord(number, prefix + item.name, item.step, item.value, item.at) for item in batch.metrics
                ]
                _inherit(connection, number, batch, prefix, after.attempt)
                renamed |= insert_metrics(connection, number, batch.source, items)
                _add_parameters(connection, number, batch, prefix)
        return renamed


def parameters_of(connection: Connection, number: int) -> dict[str, str]:
    """Return the parameters that a run has logged, by name."""
    logged = logged_parameters.c
    query = select(logged.name, logged.value).where(logged.run == number).order_by(logged.name)
    return {row.name: row.value for row in connection.execute(query)}


def _advance(connection: Connection, number: int, before: TrackerFile | None, after: TrackerFile) -> bool:
    known = tracker_files.c
    columns = {"attempt": after.attempt, "inode": after.inode, "position": after.position}
    if before is None:
        first = upsert(tracker_files).values(run=number, path=after.path, **columns)
        return bool(connection.execute(first.on_conflict_do_nothing()).rowcount)
    is_as_before = [known.attempt == before.attempt, known.inode == before.inode, known.position == before.position]
    moved = update(tracker_files).where(known.run == number, known.path == before.path, *is_as_before)
    return bool(connection.execute(moved.values(**columns)).rowcount)


def _note_source(connection: Connection, number: int, batch: TrackerBatch, attempt: int) -> str:
    """Note a source and what it counts; return its prefix."""
    known = tracker_sources.c
    first = upsert(tracker_sources).values(
        run=number, source=batch.source, prefix=batch.prefix, counts="{}", attempt=attempt
    )
    keys, is_later = [known.run, known.source], known.attempt < attempt
    connection.execute(first.on_conflict_do_update(index_elements=keys, set_={"attempt": attempt}, where=is_later))
    is_this = (known.run == number) & (known.source == batch.source)
    row = connection.execute(select(known.prefix, known.counts).where(is_this)).one()
    if batch.counts:
        counts = Counter(json.loads(row.counts))
        counts.update(batch.counts)
        connection.execute(update(tracker_sources).where(is_this).values(counts=json.dumps(counts)))
    return str(row.prefix)


def _inherit(connection: Connection, number: int, batch: TrackerBatch, prefix: str, attempt: int) -> None:
    """Take over the names that this tracker used in an earlier attempt: it logs there under another ID each time."""
    word = batch.source.partition(":")[0]
    known = tracker_sources.c
    query = select(known.source).where(known.run == number, known.attempt < attempt)
    earlier = [source for source in connection.scalars(query) if source.startswith(f"{word}:")]
    if not earlier:
        return
    bare = {item.name for item in batch.metrics} | batch.parameters.keys()
    names = [f"{before}{prefix}{name}" for name in bare for before in ("", f"{word}/")]
    for table in (metric_summaries, logged_parameters):
        old = table.c
        is_theirs = (old.run == number) & old.source.in_(earlier) & old.name.in_(names)
        connection.execute(update(table).where(is_theirs).values(source=batch.source))


def _void(connection: Connection, number: int, source: str, step: int) -> None:
    """Forget the values of a source from a step on: its writer has begun anew there."""
    summaries = metric_summaries.c
    of_source = (summaries.run == number) & (summaries.source == source)
    names = select(summaries.name).where(of_source)
    is_void = (metrics.c.run == number) & metrics.c.name.in_(names) & (metrics.c.step >= step)
    changed = list(connection.scalars(select(metrics.c.name).where(is_void).distinct()))
    connection.execute(delete(metrics).where(is_void))
    for name in changed:
        is_left = (metrics.c.run == number) & (metrics.c.name == name)
        value = metrics.c.value
        left = select(func.count(), func.min(value), func.max(value), func.sum(value)).where(is_left)
        count, least, most, total = connection.execute(left).one()
        is_this = of_source & (summaries.name == name)
        if not count:
            connection.execute(delete(metric_summaries).where(is_this))
            continue
        newest = select(metrics.c.step, value).where(is_left).order_by(metrics.c.id.desc()).limit(1)
        last = connection.execute(newest).one()
        columns = {"count": count, "step": last.step, "last": last.value, "least": least, "most": most, "total": total}
        connection.execute(update(metric_summaries).where(is_this).values(**columns))


def _add_parameters(connection: Connection, number: int, batch: TrackerBatch, prefix: str) -> None:
    if not batch.parameters:
        return
    logged = logged_parameters.c
    owners = {row.name: row for row in connection.execute(select(logged_parameters).where(logged.run == number))}
    for bare, value in batch.parameters.items():
        name = prefix + bare
        owner = owners.get(name)
        if owner and owner.source != batch.source:
            if owner.value == value:
                continue  # two trackers say the same
            name = f"{batch.source.partition(':')[0]}/{name}"
        row = {"run": number, "name": name, "value": value, "source": batch.source}
        same = upsert(logged_parameters).values(row)
        connection.execute(same.on_conflict_do_update(index_elements=[logged.run, logged.name], set_={"value": value}))
