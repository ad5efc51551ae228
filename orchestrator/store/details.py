"""What belongs to a run but is read apart from it: artifacts, metrics, samples."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from sqlalchemy import Connection, and_, bindparam, delete, exists, func, insert, not_, select, text, update
from sqlalchemy.dialects.sqlite import insert as upsert

from orchestrator.content.manifest import EXECUTABLE, FILE
from orchestrator.records.files import ArtifactRecord
from orchestrator.records.runs import MetricRecord, SampleRecord
from orchestrator.records.watching import MetricSummary
from orchestrator.spec.run import to_wire
from orchestrator.store.database import Database
from orchestrator.store.tables import SHARED, artifacts, metric_summaries, metrics, runs, samples

_SAME_AT_MOST = 4
# What every run asks is put together once: that takes SQLAlchemy longer than SQLite takes to answer it.
_ADD_SAMPLE = insert(samples)
_METRICS_OFFSET = select(runs.c.metrics_offset).where(runs.c.number == bindparam("run"))
_HAS_ARTIFACTS = select(exists().where(artifacts.c.run == bindparam("run")))
_MOST = sys.float_info.max  # a sum that is infinite could be told to nobody


class DetailStore:
    """Artifacts, metrics and samples."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def set_artifacts(self, number: int, found: Sequence[ArtifactRecord]) -> None:
        """Record the outputs of a run; replaces what was recorded before (a save that was done again)."""
        if not found and not self._has_artifacts(number):
            return  # most runs that are tried leave nothing: no need to wait for the disk
        kept = [item for item in found if not item.note]
        with self._db.write() as connection:
            connection.execute(delete(artifacts).where(artifacts.c.run == number))
            if found:
                connection.execute(insert(artifacts), [to_wire(item) for item in found])
            connection.execute(
                update(runs)
                .where(runs.c.number == number)
                .values(outputs_count=len(kept), outputs_bytes=sum(item.size for item in kept))
            )

    def _has_artifacts(self, number: int) -> bool:
        with self._db.read() as connection:
            return bool(connection.scalar(_HAS_ARTIFACTS, {"run": number}))

    def artifacts(self, number: int) -> list[ArtifactRecord]:
        """The outputs of a run, by path; those that were not kept too, with their note."""
        query = select(artifacts).where(artifacts.c.run == number).order_by(artifacts.c.path)
        with self._db.read() as connection:
            return [ArtifactRecord(**row._mapping) for row in connection.execute(query)]

    def unhashed(self, limit: int) -> list[ArtifactRecord]:
        """Kept outputs whose hash is not known yet; small ones first, as big ones would hold them up for long."""
        query = select(artifacts).where(artifacts.c.sha256.is_(None), artifacts.c.note == "")
        query = query.order_by(artifacts.c.size).limit(limit)
        with self._db.read() as connection:
            return [ArtifactRecord(**row._mapping) for row in connection.execute(query)]

    def same_artifacts(self, item: ArtifactRecord, sha256: str) -> list[ArtifactRecord]:
        """Kept outputs, those of the latest runs first, with these bytes and the mode of another; a few of them.

        There are none of an output that is too small to share its bytes: less than a block.
        """
        found = artifacts.c
        query = (
            select(artifacts)
            .join(runs, runs.c.number == found.run)
            .where(text(SHARED), found.sha256 == sha256, found.size == item.size, found.mode == item.mode)
            .where(found.mode.in_([FILE, EXECUTABLE]), found.note == "", runs.c.outputs_removed_at.is_(None))
            .where(not_(and_(found.run == item.run, found.path == item.path)))
            .order_by(found.run.desc())
            .limit(_SAME_AT_MOST)
        )
        with self._db.read() as connection:
            return [ArtifactRecord(**row._mapping) for row in connection.execute(query)]

    def set_hashes(self, found: Sequence[tuple[int, str, str]]) -> None:
        """Record `(run, path, sha256)`."""
        with self._db.write() as connection:
            for number, path, sha256 in found:
                connection.execute(
                    update(artifacts).where(artifacts.c.run == number, artifacts.c.path == path).values(sha256=sha256)
                )

    def metrics_offset(self, number: int) -> int:
        """How many bytes of the run's metrics file are in the store."""
        with self._db.read() as connection:
            return connection.scalar(_METRICS_OFFSET, {"run": number}) or 0

    def add_metrics(self, number: int, found: Sequence[MetricRecord], offset: int, new_offset: int) -> None:
        """Record what lies in the metrics file between two offsets; nothing when somebody else did before."""
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
        """The last step of each metric of a run."""
        query = select(metric_summaries.c.name, metric_summaries.c.step).where(metric_summaries.c.run == number)
        with self._db.read() as connection:
            return {row.name: row.step for row in connection.execute(query)}

    def metrics_after(self, number: int, position: int, limit: int, name: str = "") -> list[tuple[int, MetricRecord]]:
        """The next values that a run has sent (of one name, or all), each with its position; 0 stands before the first."""
        wanted = [metrics.c.run == number, metrics.c.id > position, *([metrics.c.name == name] if name else [])]
        query = select(metrics).where(*wanted).order_by(metrics.c.id).limit(limit)
        with self._db.read() as connection:
            rows = connection.execute(query)
            return [(row.id, MetricRecord(row.run, row.name, row.step, row.value, row.at)) for row in rows]

    def metric_summaries(self, number: int) -> list[MetricSummary]:
        """All that a run has sent, a line for each metric, by name."""
        sent = metric_summaries.c
        query = select(sent.run, sent.name, sent.count, sent.step, sent.last, sent.least, sent.most)
        query = query.add_columns(sent.total / sent.count).where(sent.run == number).order_by(sent.name)
        with self._db.read() as connection:
            return [MetricSummary(*tuple(row)) for row in connection.execute(query)]

    def add_sample(self, sample: SampleRecord) -> None:
        """Record what a run used at one moment."""
        with self._db.write() as connection:
            add_sample(connection, sample)

    def samples(self, number: int) -> list[SampleRecord]:
        """What a run used, in order of time."""
        query = select(samples).where(samples.c.run == number).order_by(samples.c.id)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return [
            SampleRecord(row.run, row.at, row.cpu_time_s, row.memory_bytes, row.processes, json.loads(row.gpus))
            for row in rows
        ]


def add_sample(connection: Connection, sample: SampleRecord) -> None:
    """Record a sample in a transaction that records more."""
    connection.execute(_ADD_SAMPLE, to_wire(sample) | {"gpus": json.dumps(sample.gpus)})


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
