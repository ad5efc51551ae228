"""Reads a file of a tracker from a position on: one function for each kind of file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from orchestrator.formats import csv_log, mlflow_store, sqlite_file, tfevents, trackio_store, wandb_log
from orchestrator.formats.records import Point, TrackedRun
from orchestrator.telemetry.trackers import search
from orchestrator.telemetry.trackers.found import Found, Logged, Picture
from orchestrator.telemetry.trackers.places import is_inside, opened

_ROWS = 10_000
_QUERY_S = 1.0
_LONG_S = 0.1
_MOST_COPY_BYTES = 256 << 20
_SHARE = 20  # what takes long may take this part of the time
_MOST_PARAMETER_BYTES = 8 << 10


@dataclass(frozen=True, slots=True)
class Place:
    """A file to read.

    Attributes:
        root: the work dir.
        path: below it.
        since: when the command began, in seconds since the epoch; earlier rows of a database are not of this run.
        now: the time.
        memory: what the reader wants to find again at its next call; it may be lost.
    """

    root: Path
    path: str
    since: float
    now: float
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder of the file, below the work dir; "" for the work dir itself."""
        return self.path.rpartition("/")[0]


def tensorboard(place: Place, position: int, limit_bytes: int) -> Found:
    """An event file. All files of one folder are one source: so does TensorBoard see them."""
    with opened(place.root, place.path) as file:
        batch = tfevents.read(file, position, limit_bytes)
    current = Logged(f"tensorboard:{place.folder}", place.folder)
    logged = [current]
    for event in batch.items:
        if event.restarts:
            current = Logged(current.source, current.label, void_from=event.step)
            logged.append(current)
        for value in event.values:
            if value.kind == "scalar":
                current.points.append(Point(value.tag, event.step, value.number, event.at))
            elif value.kind == "hparams":
                current.parameters |= value.hparams
            elif value.kind == "image":
                current.pictures += [Picture(value.tag, event.step, data) for data in value.pictures]
            elif value.kind != "other":
                current.count(value.kind)
    return Found(batch.next, logged, batch.damage, batch.more)


def wandb(place: Place, position: int, limit_bytes: int) -> Found:
    """The log of an offline run. The name of its file holds its ID; its own name is in a record before its values."""
    with opened(place.root, place.path) as file:
        batch = wandb_log.read(file, position, limit_bytes)
    which = place.path.rpartition("/")[2].removesuffix(wandb_log.SUFFIX).removeprefix("run-")
    logged = Logged(f"wandb:{which}", place.memory.get("label", which))
    for record in batch.items:
        if record.kind == "history":
            logged.points += wandb_log.points(record)
        elif record.kind in ("run", "config"):
            state = wandb_log.RunState()
            state.add(record)
            logged.parameters |= state.result().parameters
            logged.label = place.memory["label"] = state.run.get("display_name") or logged.label
    return Found(batch.next, [logged], batch.damage, batch.more)


def database(place: Place, position: int, limit_bytes: int) -> Found:
    """A database of MLflow or Trackio; the position is that of its last row. One that takes long, as when it must be copied, is read seldom."""
    begun = time.monotonic()
    if begun < place.memory.get("not before", 0.0):
        return Found(position)
    found = _database(place, position)
    end = time.monotonic()
    if end - begun > _LONG_S and not found.more:
        place.memory["not before"] = end + _SHARE * (end - begun)
    return found


def _database(place: Place, position: int) -> Found:
    if not is_inside(place.root, place.path):
        return Found(position, foreign=True)
    path = place.root / place.path
    if not path.stat().st_size:
        return Found(position)
    try:
        with sqlite_file.opened(path, _QUERY_S, _MOST_COPY_BYTES) as connection:
            if mlflow_store.is_store(connection):
                return _mlflow(place, connection, position)
            if trackio_store.is_store(connection):
                return _trackio(place, connection, position)
            return Found(position, foreign=bool(sqlite_file.tables(connection)))
    except sqlite_file.Unreadable as error:
        is_of_a_tracker = position or place.path.rpartition("/")[2] == mlflow_store.NAME
        if error.is_damaged and not is_of_a_tracker:  # many programs call a file so
            return Found(position, foreign=True)
        return Found(position, damage=str(error) if error.is_damaged else "")


def _mlflow(place: Place, connection: Connection, position: int) -> Found:
    rows = mlflow_store.points(connection, position, _ROWS)
    runs = {run.key: run for run in mlflow_store.runs(connection, with_parameters=False)}
    keys = {row.run for row in rows} | {key for key, run in runs.items() if _is_of(place, run)}
    sources = {key: Logged(f"mlflow:{key}", runs[key].name or key) for key in runs if key in keys}
    for key, logged in sources.items():
        logged.parameters = mlflow_store.parameters(connection, key) if _is_of(place, runs[key]) else {}
    for row in rows:
        if row.point.at >= place.since and row.run in sources:
            sources[row.run].points.append(row.point)
    return Found(rows[-1].position if rows else position, list(sources.values()), more=len(rows) == _ROWS)


def _trackio(place: Place, connection: Connection, position: int) -> Found:
    rows = trackio_store.points(connection, position, _ROWS)
    runs = {run.key: run for run in trackio_store.runs(connection, with_rows=False)}
    sources = {run.key: Logged(f"trackio:{run.key}", run.name) for run in runs.values() if _is_of(place, run)}
    for key, logged in sources.items():
        logged.parameters = dict(runs[key].parameters)
    for row in rows:
        points = [point for point in row.points if point.at >= place.since]
        if points:
            label = runs[row.run].name if row.run in runs else row.run
            sources.setdefault(row.run, Logged(f"trackio:{row.run}", label)).points += points
    return Found(rows[-1].position if rows else position, list(sources.values()), more=len(rows) == _ROWS)


def _is_of(place: Place, run: TrackedRun) -> bool:
    return run.started_at is not None and run.started_at >= place.since


def mlflow_metric(place: Place, position: int, limit_bytes: int) -> Found:
    """The file of one metric in a folder `mlruns`."""
    run, name = _of_mlruns(place)
    with opened(place.root, place.path) as file:
        batch = mlflow_store.read_metric(file, name, position, limit_bytes)
    points = [point for point in batch.items if point.at >= place.since]
    return Found(batch.next, [Logged(f"mlflow:{run}", run, points)], batch.damage, batch.more)


def mlflow_parameter(place: Place, position: int, limit_bytes: int) -> Found:
    """The file of one parameter in a folder `mlruns`; the position is 1 when it was read."""
    run, name = _of_mlruns(place)
    with opened(place.root, place.path) as file:
        value = file.read(_MOST_PARAMETER_BYTES).decode("utf-8", "replace")
    if position or not value:
        return Found(position)
    return Found(1, [Logged(f"mlflow:{run}", run, parameters={name: value})])


def _of_mlruns(place: Place) -> tuple[str, str]:
    found = search.OF_MLFLOW.search(place.path)
    assert found, place.path  # that is how it was found
    return found[1], found[3]


def lightning(place: Place, position: int, limit_bytes: int) -> Found:
    """A `metrics.csv`; the position is the number of rows that were read, as the file is written anew for a new column."""
    with opened(place.root, place.path) as file:
        names, start = csv_log.columns(file)
        if not names:
            return Found(position, foreign=start > 0)
        row, first = 0, start
        if place.memory.get("names") == names:
            row, start = place.memory["row"], place.memory["start"]
        logged = Logged(f"lightning:{place.folder}", place.folder)
        more, damage = True, ""
        while more and (row <= position or start - first < limit_bytes):
            batch = csv_log.read(file, names, start, limit_bytes)
            for points in batch.items:
                row += 1
                if row > position:
                    logged.points += [point._replace(at=place.now) for point in points]
            start, more, damage = batch.next, batch.more, damage or batch.damage
    if row < position and not more:  # the run has begun it anew, in the place of the old one
        place.memory.clear()
        return lightning(place, 0, limit_bytes)
    place.memory.update(names=names, row=row, start=start)
    return Found(max(row, position), [logged], damage, more)


READERS: Mapping[str, Callable[[Place, int, int], Found]] = {
    search.TENSORBOARD: tensorboard,
    search.WANDB: wandb,
    search.DATABASE: database,
    search.MLFLOW_METRIC: mlflow_metric,
    search.MLFLOW_PARAMETER: mlflow_parameter,
    search.LIGHTNING: lightning,
}
