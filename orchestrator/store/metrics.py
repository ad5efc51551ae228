"""Metrics that runs have sent, and a summary of each."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from orchestrator.records.metrics import MetricRecord, MetricSummary
from orchestrator.spec.run import to_wire
from orchestrator.store.database import Database
from orchestrator.store.tables import metric_summaries, metrics, runs

# Statements for every run are built once, because building takes SQLAlchemy longer than running takes SQLite.
_METRICS_OFFSET = select(runs.c.metrics_offset).where(runs.c.number == bindparam("run"))
_MOST = sys.float_info.max  # JSON cannot hold an infinite sum


class MetricStore:
    """Metrics of the runs of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def metrics_offset(self, number: int) -> int:
        """Return how many bytes of the run's metrics file are in the store."""
        with self._db.read() as connection:
            return connection.scalar(_METRICS_OFFSET, {"run": number}) or 0

    def add_metrics(self, number: int, found: Sequence[MetricRecord], offset: int, new_offset: int) -> None:
        """Record the lines of the metrics file between two offsets, unless another caller has recorded them."""
        with self._db.write() as connection:
            won = connection.execute(
                update(runs)
                .where(runs.c.number == number, runs.c.metrics_offset == offset)
                .values(metrics_offset=new_offset)
            ).rowcount
            if won and found:
                connection.execute(insert(metrics), [to_wire(item) for item in found])
                _summarise(connection, found)

    def last_steps(self, number: int) -> dict[str, int]:
        """Return the last step of each metric of a run."""
        query = select(metric_summaries.c.name, metric_summaries.c.step).where(metric_summaries.c.run == number)
        with self._db.read() as connection:
            return {row.name: row.step for row in connection.execute(query)}

    def metrics_after(self, number: int, position: int, limit: int, name: str = "") -> list[tuple[int, MetricRecord]]:
        """Return the next values of a run (of one name, or all), each with its position; 0 stands before the first."""
        wanted = [metrics.c.run == number, metrics.c.id > position, *([metrics.c.name == name] if name else [])]
        query = select(metrics).where(*wanted).order_by(metrics.c.id).limit(limit)
        with self._db.read() as connection:
            rows = connection.execute(query)
            return [(row.id, MetricRecord(row.run, row.name, row.step, row.value, row.at)) for row in rows]

    def metric_summaries(self, number: int) -> list[MetricSummary]:
        """Return a summary of each metric of a run, by name."""
        sent = metric_summaries.c
        query = select(sent.run, sent.name, sent.count, sent.step, sent.last, sent.least, sent.most)
        query = query.add_columns(sent.total / sent.count).where(sent.run == number).order_by(sent.name)
        with self._db.read() as connection:
            return [MetricSummary(*tuple(row)) for row in connection.execute(query)]


def _summarise(connection: Connection, found: Sequence[MetricRecord]) -> None:
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
        }
        for (run, name), items in by_name.items()
    ]
    connection.execute(merged, rows)
