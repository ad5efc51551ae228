"""Metrics that runs have sent, and a summary of each."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from orchestrator.records.metrics import MetricRecord, MetricSummary
from orchestrator.spec.run import to_wire
from orchestrator.store.database import Database
from orchestrator.store.tables import metric_summaries, metrics, runs

# Statements for every run are built once, because building takes SQLAlchemy longer than running takes SQLite.
_METRICS_OFFSET = select(runs.c.metrics_offset).where(runs.c.number == bindparam("run"))
SENT = ""
"""The source of metrics that came by `send_metric`; those of trackers have others: `store/trackers.py`."""
_SENT_TOO = "send_metric/"  # before a name that a tracker had first
_MOST = sys.float_info.max  # JSON cannot hold an infinite sum


class MetricStore:
    """Metrics of the runs of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def metrics_offset(self, number: int) -> int:
        """Return how many bytes of the run's metrics file are in the store."""
        with self._db.read() as connection:
            return connection.scalar(_METRICS_OFFSET, {"run": number}) or 0

    def add_metrics(
        self, number: int, found: Sequence[MetricRecord], offset: int, new_offset: int
    ) -> Mapping[str, str]:
        """Record the lines of the metrics file between two offsets, unless another caller has recorded them.

        Returns:
            the names that belonged to another source, and those that were used instead.
        """
        with self._db.write() as connection:
            won = connection.execute(
                update(runs)
                .where(runs.c.number == number, runs.c.metrics_offset == offset)
                .values(metrics_offset=new_offset)
            ).rowcount
            return insert_metrics(connection, number, SENT, found) if won else {}

    def last_steps(self, number: int) -> dict[str, int]:
        """Return the last step of each metric that a run has sent by `send_metric`, by the name under which it did."""
        sent = metric_summaries.c
        query = select(sent.name, sent.step).where(sent.run == number, sent.source == SENT)
        with self._db.read() as connection:
            steps = {row.name: row.step for row in connection.execute(query)}
        return steps | {
            name.removeprefix(_SENT_TOO): step for name, step in steps.items() if name.startswith(_SENT_TOO)
        }

    def metrics_after(self, number: int, position: int, limit: int, name: str = "") -> list[tuple[int, MetricRecord]]:
        """Return the next values of a run (of one name, or all), each with its position; 0 stands before the first."""
        wanted = [metrics.c.run == number, metrics.c.id > position, *([metrics.c.name == name] if name else [])]
        query = select(metrics).where(*wanted).order_by(metrics.c.id).limit(limit)
        with self._db.read() as connection:
            rows = connection.execute(query)
            return [(row.id, MetricRecord(row.run, row.name, row.step, row.value, row.at)) for row in rows]

    def metric_summaries(self, number: int, source: str | None = None) -> list[MetricSummary]:
        """Return a summary of each metric of a run, by name; of one source if it is given."""
        sent = metric_summaries.c
        query = select(sent.run, sent.name, sent.count, sent.step, sent.last, sent.least, sent.most)
        query = query.add_columns(sent.total / sent.count).where(sent.run == number).order_by(sent.name)
        query = query if source is None else query.where(sent.source == source)
        with self._db.read() as connection:
            return [MetricSummary(*tuple(row)) for row in connection.execute(query)]


def insert_metrics(connection: Connection, number: int, source: str, found: Sequence[MetricRecord]) -> dict[str, str]:
    """Insert metrics of one source of a run: SENT, or TRACKER:WHICH.

    A name belongs to the source that used it first. Another one gets TRACKER/NAME, so that series never mix.

    Returns:
        the names that belonged to another source, and those that were used instead.
    """
    if not found:
        return {}
    renamed = _renamed(connection, number, source, {item.name for item in found})
    if renamed:
        found = [dataclasses.replace(item, name=renamed.get(item.name, item.name)) for item in found]
    connection.execute(insert(metrics), [to_wire(item) for item in found])
    _summarise(connection, source, found)
    return renamed


def _renamed(connection: Connection, number: int, source: str, names: set[str]) -> dict[str, str]:
    of_run = metric_summaries.c
    query = select(of_run.name, of_run.source).where(of_run.run == number, of_run.source != source)
    taken = {row.name for row in connection.execute(query)}
    word = source.partition(":")[0] or _SENT_TOO.strip("/")
    renamed: dict[str, str] = {}
    for name in names & taken:
        place, count = f"{word}/{name}", 1
        while place in taken:
            count += 1
            place = f"{word}-{count}/{name}"
        renamed[name] = place
    return renamed


def _summarise(connection: Connection, source: str, found: Sequence[MetricRecord]) -> None:
    """Bring the summaries of these metrics up to date: runs are filtered and sorted by them."""
    by_name: dict[tuple[int, str], list[MetricRecord]] = {}
    for item in found:
        by_name.setdefault((item.run, item.name), []).append(item)
    new = upsert(metric_summaries)
    old, added = metric_summaries.c, new.excluded
    merged = new.on_conflict_do_update(
        index_elements=[old.run, old.name],
        set_={
            "count": old.count + added.count,
            "step": added.step,
            "last": added.last,
            "least": func.min(old.least, added.least),
            "most": func.max(old.most, added.most),
            "total": func.max(-_MOST, func.min(_MOST, old.total + added.total)),
        },
    )
    rows = [
        {
            "run": run,
            "name": name,
            "count": len(items),
            "step": items[-1].step,
            "last": items[-1].value,
            "least": min(item.value for item in items),
            "most": max(item.value for item in items),
            "total": max(-_MOST, min(_MOST, sum(item.value for item in items))),
            "source": source,
        }
        for (run, name), items in by_name.items()
    ]
    connection.execute(merged, rows)
