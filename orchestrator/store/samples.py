"""Samples: what runs used of the machine, moment by moment."""

from __future__ import annotations

import json

from sqlalchemy import Connection, insert, select

from orchestrator.records.runs import SampleRecord
from orchestrator.spec.run import to_wire
from orchestrator.store.database import Database
from orchestrator.store.tables import samples

# Statements for every run are built once, because building takes SQLAlchemy longer than running takes SQLite.
_ADD_SAMPLE = insert(samples)


class SampleStore:
    """Samples of the runs of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add_sample(self, sample: SampleRecord) -> None:
        """Record what a run used at one moment."""
        with self._db.write() as connection:
            add_sample(connection, sample)

    def samples(self, number: int) -> list[SampleRecord]:
        """Return what a run used, in order of time."""
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
