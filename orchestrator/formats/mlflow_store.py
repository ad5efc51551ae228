"""Reads the stores of MLflow without MLflow: the database `mlflow.db` (its default since 3.7), and the folder `mlruns`.

Database: tables runs, experiments, metrics, params, tags; NaN is value 0 with `is_nan`, an infinite value the greatest
float. Folder: EXPERIMENT/RUN/{meta.yaml,metrics/NAME,params/NAME,tags/NAME}; a line of a metric is `MILLISECONDS VALUE STEP`.
"""

from __future__ import annotations

import dataclasses
import math
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from orchestrator.formats.records import Batch, Point, TrackedRun
from orchestrator.formats.sqlite_file import tables

NAME = "mlflow.db"
FOLDER = "mlruns"
META = "meta.yaml"
_MOST_META_BYTES = 1 << 20
_NO_RUNS = ("tags", "traces", "models", "datasets")  # folders of an experiment beside those of its runs
_STATUS = {"1": "running", "2": "scheduled", "3": "finished", "4": "failed", "5": "killed"}
_LONGEST_LINE = 4096


class Row(NamedTuple):
    """One value in the database, with the position and the key of its run."""

    position: int
    run: str
    point: Point


def is_store(connection: sqlite3.Connection) -> bool:
    """Whether a database is one of MLflow's."""
    found = tables(connection)
    return {"run_uuid", "start_time"} <= found.get("runs", set()) and "is_nan" in found.get("metrics", set())


def runs(connection: sqlite3.Connection, *, with_parameters: bool = True) -> list[TrackedRun]:
    """Return all runs of a database, in the order of their start."""
    experiments = {row["experiment_id"]: row["name"] for row in connection.execute("SELECT * FROM experiments")}
    parameters = _by_run(connection, "params") if with_parameters else {}
    tags = _by_run(connection, "tags") if with_parameters else {}
    return [
        TrackedRun(
            key=str(row["run_uuid"]),
            name=str(row["name"] or tags.get(row["run_uuid"], {}).get("mlflow.runName", "")),
            project=str(experiments.get(row["experiment_id"], "")),
            status=str(row["status"] or "").lower(),
            started_at=_seconds(row["start_time"]),
            ended_at=_seconds(row["end_time"]),
            parameters=parameters.get(row["run_uuid"], {}),
            tags=tags.get(row["run_uuid"], {}),
            artifacts=str(row["artifact_uri"] or ""),
            deleted=row["lifecycle_stage"] == "deleted",
        )
        for row in connection.execute("SELECT * FROM runs ORDER BY start_time, run_uuid")
    ]


def points(connection: sqlite3.Connection, after: int, limit: int, run: str = "") -> list[Row]:
    """Return the next values, of one run or of all, in the order of writing; 0 stands before the first."""
    wanted, values = ("AND run_uuid = ? ", (run,)) if run else ("", ())
    query = f"SELECT rowid AS position, * FROM metrics WHERE rowid > ? {wanted}ORDER BY rowid LIMIT ?"  # noqa: S608 - ours
    return [
        Row(row["position"], str(row["run_uuid"]), Point(str(row["key"]), int(row["step"] or 0), _value(row), at))
        for row in connection.execute(query, (after, *values, limit))
        if (at := _seconds(row["timestamp"]) or 0.0) is not None
    ]


def parameters(connection: sqlite3.Connection, run: str) -> dict[str, str]:
    """Return the parameters of one run."""
    query = "SELECT key, value FROM params WHERE run_uuid = ?"
    return {str(row["key"]): str(row["value"]) for row in connection.execute(query, (run,))}


def _value(row: sqlite3.Row) -> float:
    if row["is_nan"]:
        return math.nan
    value = float(row["value"])
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _by_run(connection: sqlite3.Connection, table: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608 - a name of ours
        found.setdefault(row["run_uuid"], {})[str(row["key"])] = str(row["value"])
    return found


def _seconds(milliseconds: object) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int | float) and milliseconds else None


# -- the folder ---------------------------------------------------------------------------------------------------


def file_runs(root: Path) -> Iterator[tuple[Path, TrackedRun]]:
    """Yield the runs of a folder `mlruns`, each with its own folder. Folders that are no runs are passed over."""
    for experiment in sorted(path for path in root.iterdir() if path.is_dir()):
        name = meta(experiment).get("name", "")
        for folder in sorted(path for path in experiment.iterdir() if path.is_dir()):
            if found := file_run(folder, name):
                yield folder, found


def nameless_runs(root: Path) -> Iterator[tuple[Path, TrackedRun]]:
    """Yield the folders of runs whose `meta.yaml` is missing or damaged, with what the others of their files say."""
    for experiment in sorted(path for path in root.iterdir() if path.is_dir()):
        for folder in sorted(path for path in experiment.iterdir() if path.is_dir() and path.name not in _NO_RUNS):
            is_one = any((folder / name).exists() for name in (META, "metrics", "params"))
            if is_one and file_run(folder) is None and (found := file_run(folder, key=folder.name)):
                yield folder, dataclasses.replace(found, status="unknown")


def file_run(folder: Path, experiment: str = "", key: str = "") -> TrackedRun | None:
    """Return the run of one folder; None when it is none. `key` is that of a run whose `meta.yaml` does not say it."""
    words = meta(folder)
    key = words.get("run_id") or words.get("run_uuid") or key
    if not key:
        return None
    tags = _texts(folder / "tags")
    return TrackedRun(
        key=key,
        name=words.get("run_name") or tags.get("mlflow.runName", ""),
        project=experiment,
        status=_STATUS.get(words.get("status", ""), ""),
        started_at=_of_digits(words.get("start_time", "")),
        ended_at=_of_digits(words.get("end_time", "")),
        parameters=_texts(folder / "params"),
        tags=tags,
        artifacts=words.get("artifact_uri", ""),
        deleted=words.get("lifecycle_stage") == "deleted",
    )


def meta(folder: Path) -> dict[str, str]:
    """Return the `meta.yaml` of a run or experiment: it is flat, so it needs no parser of YAML."""
    try:
        with (folder / META).open("rb") as file:
            lines = file.read(_MOST_META_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(": ") for line in lines if not line.startswith((" ", "-", "#")))
    return {name: _plain(value) for name, _, value in pairs if value}


def _plain(value: str) -> str:
    if value[:1] == "'" and value[-1:] == "'" and len(value) > 1:
        return value[1:-1].replace("''", "'")
    if value[:1] == '"' and value[-1:] == '"' and len(value) > 1:
        with suppress(UnicodeError):
            return value[1:-1].encode("latin-1", "backslashreplace").decode("unicode_escape")
    return "" if value == "null" else value


def _texts(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() and not folder.is_symlink() else ():
        if path.is_file() and not path.is_symlink():
            with suppress(OSError), path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = file.read(_MOST_META_BYTES).decode("utf-8", "replace")
    return found


def _of_digits(words: str) -> float | None:
    return int(words) / 1000 if words.isdecimal() else None


def read_metric(file: BinaryIO, name: str, position: int, limit_bytes: int) -> Batch[Point]:
    """Read the whole lines of the file of one metric, from a position on."""
    file.seek(position)
    block = file.read(limit_bytes)
    whole = block[: block.rfind(b"\n") + 1]
    found, damage = [], ""
    for line in whole.splitlines():
        words = line.split()
        try:
            value, step = float(words[1]), int(words[2]) if len(words) > 2 else 0
            found.append(Point(name, step, value, int(words[0]) / 1000))
        except (ValueError, IndexError):
            damage = f"the line {line[:80]!r} is none of a metric"
    if not whole and len(block) > _LONGEST_LINE:
        return Batch([], position, f"the line at byte {position} is too long")
    return Batch(found, position + len(whole), damage, more=len(block) == limit_bytes)
