"""Writes runs into a database of MLflow, `mlflow.db`, without MLflow.

A new one gets the few tables of an early schema (revision 7ac759974ad8 of mlflow/store/db_migrations, of 2019). MLflow brings a
database in which tables are missing to its own schema when it opens it, as it does with a new one; so every later version of
it can read this. Into a database that is there already, runs are written as its own tables want them.
"""

from __future__ import annotations

import contextlib
import math
import re
import sqlite3
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.errors import DiskFull, InvalidConfig
from orchestrator.formats import mlflow_store as store
from orchestrator.formats.records import Point
from orchestrator.records.runs import RunRecord
from orchestrator.states import State

_REVISION = "7ac759974ad8"
_TABLES = """
CREATE TABLE experiments (
    experiment_id INTEGER NOT NULL, name VARCHAR(256) NOT NULL, artifact_location VARCHAR(256),
    lifecycle_stage VARCHAR(32), CONSTRAINT experiment_pk PRIMARY KEY (experiment_id), UNIQUE (name));
CREATE TABLE experiment_tags (
    "key" VARCHAR(250) NOT NULL, value VARCHAR(5000), experiment_id INTEGER NOT NULL,
    CONSTRAINT experiment_tag_pk PRIMARY KEY ("key", experiment_id),
    FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id));
CREATE TABLE runs (
    run_uuid VARCHAR(32) NOT NULL, name VARCHAR(250), source_type VARCHAR(20), source_name VARCHAR(500),
    entry_point_name VARCHAR(50), user_id VARCHAR(256), status VARCHAR(20), start_time BIGINT, end_time BIGINT,
    source_version VARCHAR(50), lifecycle_stage VARCHAR(20), artifact_uri VARCHAR(200), experiment_id INTEGER,
    CONSTRAINT run_pk PRIMARY KEY (run_uuid), FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id));
CREATE TABLE tags (
    "key" VARCHAR(250) NOT NULL, value VARCHAR(5000), run_uuid VARCHAR(32) NOT NULL,
    CONSTRAINT tag_pk PRIMARY KEY ("key", run_uuid), FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid));
CREATE TABLE params (
    "key" VARCHAR(250) NOT NULL, value VARCHAR(250) NOT NULL, run_uuid VARCHAR(32) NOT NULL,
    CONSTRAINT param_pk PRIMARY KEY ("key", run_uuid), FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid));
CREATE TABLE metrics (
    "key" VARCHAR(250) NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL, run_uuid VARCHAR(32) NOT NULL,
    step BIGINT DEFAULT '0' NOT NULL, is_nan BOOLEAN DEFAULT '0' NOT NULL,
    CONSTRAINT metric_pk PRIMARY KEY ("key", timestamp, step, run_uuid, value, is_nan),
    FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid));
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
INSERT INTO alembic_version VALUES (:revision);
INSERT INTO experiments VALUES (0, 'Default', :default, 'active');
"""
_STATUS = {State.COMPLETE: "FINISHED", State.STOPPED: "KILLED", State.KILLED: "KILLED"}
_UNSAID = "spell"  # the experiment of runs without a project
_LONGEST_PARAM, _LONGEST_TAG, _LONGEST_NAME = 6000, 5000, 250
_BUSY_S = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run goes: its key there, and the folder of its artifacts."""

    key: str
    artifacts: Path


class MlflowDatabase:
    """The database in a folder, with the artifacts of its runs in `mlruns` beside it.

    Raises:
        InvalidConfig: its `mlflow.db` is something else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder.absolute(), folder.absolute() / store.NAME
        self._db = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        try:
            if not self._columns("runs"):
                self._make()
            elif not store.is_store(self._db):
                raise InvalidConfig(f"{self._path} is no database of MLflow.", "Name another folder.")
        except sqlite3.DatabaseError as error:
            raise InvalidConfig(f"{self._path} cannot be used: {error}.", "Name another folder.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def place(self, run: RunRecord) -> Place | None:
        """Return where a run goes; None when it is there already."""
        key = _key(run)
        if self._db.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (key,)).fetchone():
            return None
        with self._writing():
            experiment = self._experiment(_experiment_of(run))
        return Place(key, self._folder / store.FOLDER / str(experiment) / key / "artifacts")

    def add(self, run: RunRecord, place: Place, points: Iterable[Point]) -> None:
        """Write a run, with its values, or nothing of it."""
        started, ended = run.started_at or run.created_at, run.ended_at
        with self._writing():
            self._insert(
                "runs",
                run_uuid=place.key,
                name=run.name or f"run {run.number}",
                source_type="LOCAL",
                source_name=run.command[:500],
                entry_point_name="",
                user_id="",
                status=_STATUS.get(State(run.state), "FAILED"),
                start_time=round(started * 1000),
                end_time=None if ended is None else round(ended * 1000),
                source_version=run.commit[:50],
                lifecycle_stage="active",
                artifact_uri=str(place.artifacts),
                experiment_id=self._experiment(_experiment_of(run)),
            )
            given = run.spec["params"]
            for name, value in {
                **given,
                **run.logged,
                **given,
            }.items():  # of two that become the same key the first stays
                self._insert("params", key=_allowed(name), value=value[:_LONGEST_PARAM], run_uuid=place.key)
            for name, value in _tags(run).items():
                self._insert("tags", key=name, value=value[:_LONGEST_TAG], run_uuid=place.key)
            self._add_points(place.key, points)

    def _add_points(self, key: str, points: Iterable[Point]) -> None:
        last: dict[str, dict[str, Any]] = {}
        has_last = bool(self._columns("latest_metrics"))
        for point in points:
            row = {"key": _allowed(point.name), "step": point.step, "run_uuid": key, **_stored(point.value)}
            row["timestamp"] = round(point.at * 1000)
            self._insert("metrics", **row)
            order = (row["step"], row["timestamp"], row["value"])
            if (old := last.get(row["key"])) is None or order >= (old["step"], old["timestamp"], old["value"]):
                last[row["key"]] = row
        for row in last.values() if has_last else ():
            self._insert("latest_metrics", **row)

    def _experiment(self, name: str) -> int:
        found = self._db.execute("SELECT experiment_id FROM experiments WHERE name = ?", (name,)).fetchone()
        if found:
            return int(found[0])
        number = int(self._db.execute("SELECT coalesce(max(experiment_id), 0) + 1 FROM experiments").fetchone()[0])
        self._insert(
            "experiments",
            experiment_id=number,
            name=name,
            artifact_location=str(self._folder / store.FOLDER / str(number)),
            lifecycle_stage="active",
        )
        return number

    def _make(self) -> None:
        values = {"default": str(self._folder / store.FOLDER / "0"), "revision": _REVISION}
        with self._writing():
            for statement in _TABLES.split(";\n"):
                self._db.execute(statement, values)

    def _insert(self, table: str, **values: Any) -> None:
        names = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" for _ in values)
        self._db.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", [*values.values()])  # noqa: S608 - ours

    def _columns(self, table: str) -> set[str]:
        return {row["name"] for row in self._db.execute("SELECT name FROM pragma_table_info(?)", (table,))}

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if "full" in str(error):
                raise DiskFull(f"The disk has no room for {self._path}.") from error
            raise InvalidConfig(
                f"{self._path} cannot be written: {error}.", "Close what uses it, then export again."
            ) from error


def _key(run: RunRecord) -> str:
    """Return the key of a run there: that which it was imported with, or one that is always the same for it."""
    tracker, _, key = run.imported.origin.partition(":") if run.imported else ("", "", "")
    if tracker == "mlflow" and re.fullmatch("[0-9a-f]{32}", key):
        return key
    return uuid.uuid5(uuid.NAMESPACE_URL, f"spell:{run.created_at!r}/{run.number}").hex


def _experiment_of(run: RunRecord) -> str:
    return run.project or (run.imported.project if run.imported else "") or _UNSAID


def _tags(run: RunRecord) -> Mapping[str, str]:
    found = {}
    for label in run.labels:
        name, _, value = label.partition(":")
        found[_allowed(name)] = value
    found |= {
        "mlflow.runName": run.name or f"run {run.number}",
        "mlflow.source.name": run.command,
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": run.description,
        "mlflow.source.git.commit": run.commit,
        "spell.run": str(run.number),
        "spell.state": run.state,
        "spell.message": run.message,
        "spell.mounts": " ".join(f"{item['resource']}:{item['path']}" for item in run.mounts),
    }
    return {name: value for name, value in found.items() if value or not name.startswith(("mlflow.", "spell."))}


def _allowed(name: str) -> str:
    """Return a name in the characters that MLflow allows in keys."""
    return re.sub(r"[^\w ./:-]", "_", name)[:_LONGEST_NAME]


def _stored(value: float) -> dict[str, Any]:
    """Return a value as the table has it: NaN by a mark, an infinite value as the greatest one."""
    if math.isnan(value):
        return {"value": 0.0, "is_nan": True}
    return {"value": max(-sys.float_info.max, min(sys.float_info.max, value)), "is_nan": False}
