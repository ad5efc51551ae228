"""Runs of MLflow: the database `mlflow.db`, or the folder `mlruns` of earlier versions.

Both name artifacts by the absolute path or URI that they had. Where that is gone, as the project was moved, they are looked for
by the end of that path beside the store.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.errors import InvalidConfig, NotFound
from orchestrator.formats import mlflow_store as store
from orchestrator.formats.records import Point, TrackedRun
from orchestrator.formats.sqlite_file import Unreadable, opened, tables
from orchestrator.records.imports import ImportedRun
from orchestrator.trackers.found import Found, files_below
from orchestrator.trackers.words import spec_of

NAME = "mlflow"
_LIMIT_S = 3600.0
_AT_ONCE = 10_000
_AT_ONCE_BYTES = 4 << 20
_NO_LABELS = ("mlflow.", "spell.")  # the second ones are written by `spell export --to mlflow`
_REASONS = {"finished": "complete", "": "complete", "failed": "failed", "killed": "stopped"}
_SERVED = "mlartifacts"  # where `mlflow server` keeps what its clients log


def find(path: Path) -> Iterator[Found]:
    """Yield the runs of a database, of a folder `mlruns`, or of a folder with one of them.

    Raises:
        NotFound: there is none.
        InvalidConfig: it is damaged.
    """
    if path.is_file():
        yield from _of_database(path)
    elif (path / store.NAME).is_file():
        yield from _of_database(path / store.NAME)
    elif folder := next((place for place in (path / store.FOLDER, path) if _is_file_store(place)), None):
        yield from _of_folder(folder)
    else:
        raise NotFound(
            f"{path} holds neither {store.NAME} nor {store.FOLDER}.", "Name the folder in which the runs were logged."
        )


def _is_file_store(path: Path) -> bool:
    return path.is_dir() and any(path.glob(f"*/{store.META}"))


def _of_database(path: Path) -> Iterator[Found]:
    models: dict[str, list[tuple[str, str]]] = {}
    try:
        with opened(path, _LIMIT_S) as database:
            if not store.is_store(database):
                raise InvalidConfig(f"{path} is no database of MLflow 2 or 3.", "Name its mlflow.db, or its folder.")
            runs = store.runs(database)
            for row in _models(database):
                models.setdefault(row["source_run_id"], []).append((row["name"], row["artifact_location"]))
    except Unreadable as error:
        raise InvalidConfig(
            f"{path} cannot be read: {error}.", "Close what writes it, or take a copy from a backup."
        ) from error
    for run in runs:
        yield _found(path, run, functools.partial(_points, path, run.key), models.get(run.key, []))


def _models(database: sqlite3.Connection) -> list[sqlite3.Row]:
    """Return the models that runs have logged: since MLflow 3 they are no artifacts of the run."""
    wanted = {"source_run_id", "name", "artifact_location"}
    if not wanted <= tables(database).get("logged_models", set()):
        return []
    return database.execute("SELECT * FROM logged_models WHERE source_run_id IS NOT NULL").fetchall()


def _points(path: Path, key: str) -> Iterator[Point]:
    position = 0
    try:
        with opened(path, _LIMIT_S) as database:
            while rows := store.points(database, position, _AT_ONCE, key):
                position = rows[-1].position
                yield from (row.point for row in rows)
    except Unreadable as error:
        raise InvalidConfig(f"{path} cannot be read: {error}.", "Take a copy from a backup.") from error


def _of_folder(root: Path) -> Iterator[Found]:
    found = sorted(store.file_runs(root), key=lambda item: item[1].started_at or 0.0)
    for folder, run in found:
        yield _found(root, run, functools.partial(_points_of_files, folder), [], folder / "artifacts")


def _points_of_files(folder: Path) -> Iterator[Point]:
    root = folder / "metrics"
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            position = 0
            while True:
                batch = store.read_metric(file, path.relative_to(root).as_posix(), position, _AT_ONCE_BYTES)
                yield from batch.items
                if batch.damage:
                    raise InvalidConfig(f"{path}: {batch.damage}.", "Take a copy from a backup, or give --partial.")
                if not batch.more or batch.next == position:
                    break
                position = batch.next


def _found(
    path: Path, run: TrackedRun, points: object, models: list[tuple[str, str]], own: Path | None = None
) -> Found:
    tags = run.tags
    labels = [f"{key}:{value}" if value else key for key, value in tags.items() if not key.startswith(_NO_LABELS)]
    program, description = tags.get("mlflow.source.name", ""), tags.get("mlflow.note.content", "")
    program = "" if program.startswith("#") else program  # a run that had been imported, and was written for MLflow
    spec, notices = spec_of(NAME, run, program=Path(program).name, description=description, labels=labels)
    files: dict[str, Path] = {}
    places = [("", own if own and own.is_dir() else _place(path, run.artifacts), run.artifacts)]
    places += [(f"models/{name}/", _place(path, uri), uri) for name, uri in models]
    for prefix, place, uri in places:
        if place:
            below, more = files_below(place)
            files |= {f"{prefix}{name}": file for name, file in below.items()}
            notices += more
        elif prefix or not _may_be_empty(uri):
            notices.append(f"Its artifacts are not on this machine: {uri}")
    end = _REASONS.get(run.status)
    parent = tags.get("mlflow.parentRunId", "")
    return Found(
        ImportedRun(
            origin=f"{NAME}:{run.key}",
            tracker=NAME,
            project=run.project,
            path=str(path.absolute()),
            spec=spec,
            reason=f"imported_{end or 'unfinished'}",
            started_at=run.started_at,
            ended_at=run.ended_at,
            commit=tags.get("mlflow.source.git.commit", "")[:40],
            notices=tuple(notices),
        ),
        title=run.name or run.key,
        points=points,  # type: ignore[arg-type]
        parent=f"{NAME}:{parent}" if parent else "",
        files=files,
        refusal="" if end else f"{path}: the run has no end: its status is {run.status.upper()}",
        is_gone=run.deleted,
    )


def _may_be_empty(uri: str) -> bool:
    """Whether there may be no artifacts: MLflow makes the folder of a run with the first one."""
    return urlsplit(uri).scheme in ("", "file", "mlflow-artifacts")


def _place(store_path: Path, uri: str) -> Path | None:
    """Return the folder of artifacts; None when it is not here."""
    parts = urlsplit(uri)
    if not uri or not _may_be_empty(uri):
        return None
    path, base = Path(unquote(parts.path) if parts.scheme else uri), store_path.absolute().parent
    if parts.scheme != "mlflow-artifacts" and path.is_absolute() and path.is_dir():
        return path
    tail = path.parts[1:] if path.is_absolute() else path.parts
    for start in range(len(tail)):
        for folder in (base, base / _SERVED, base / store.FOLDER):
            with suppress(OSError):
                if (place := folder.joinpath(*tail[start:])).is_dir() and len(tail) - start > 1:
                    return place
    return None
