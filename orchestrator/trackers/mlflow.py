"""Runs of MLflow: the database `mlflow.db`, or the folder `mlruns` of earlier versions.

Both name artifacts by the absolute path or URI that they had. Where that is gone, as the project was moved, they are looked for
by the end of that path beside the store. A store that somebody else made may name any folder of this machine: only what lies in the
store's own folders is taken, or in those that the person names.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.errors import InvalidConfig, NotFound
from orchestrator.formats import mlflow_store as store
from orchestrator.formats.records import Batch, Point, TrackedRun
from orchestrator.formats.sqlite_file import Unreadable, opened, tables
from orchestrator.records.imports import ImportedRun
from orchestrator.trackers.found import ELSEWHERE, Found, files_below, is_within
from orchestrator.trackers.words import spec_of

NAME = "mlflow"
_LIMIT_S = 3600.0
_AT_ONCE = 10_000
_AT_ONCE_BYTES = 4 << 20
_NO_LABELS = ("mlflow.", "spell.")  # the second ones are written by `spell export --to mlflow`
_REASONS = {"finished": "complete", "": "complete", "failed": "failed", "killed": "stopped"}
_SERVED = "mlartifacts"  # where `mlflow server` keeps what its clients log


def find(path: Path, elsewhere: Sequence[Path] = ()) -> Iterator[Found]:
    """Yield the runs of a database, of a folder `mlruns`, or of a folder with one of them.

    Raises:
        NotFound: there is none.
        InvalidConfig: it is damaged.
    """
    if path.is_file():
        yield from _of_database(path, elsewhere)
    elif (path / store.NAME).is_file():
        yield from _of_database(path / store.NAME, elsewhere)
    elif folder := next((place for place in (path / store.FOLDER, path) if _is_file_store(place)), None):
        yield from _of_folder(folder, elsewhere)
    else:
        raise NotFound(
            f"{path} holds neither {store.NAME} nor {store.FOLDER}.", "Name the folder in which the runs were logged."
        )


def _is_file_store(path: Path) -> bool:
    return path.is_dir() and any(path.glob(f"*/{store.META}"))


def _of_database(path: Path, elsewhere: Sequence[Path]) -> Iterator[Found]:
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
    places = _Places(path, elsewhere)
    for run in runs:
        wanted = [("", run.artifacts), *((f"models/{name}/", uri) for name, uri in models.get(run.key, []))]
        yield _found(path, run, functools.partial(_points, path, run.key), *places.files(wanted))


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


def _of_folder(root: Path, elsewhere: Sequence[Path]) -> Iterator[Found]:
    found = sorted(store.file_runs(root), key=lambda item: item[1].started_at or 0.0)
    places = _Places(root, elsewhere)
    for folder, run in found:
        files = places.files([("", run.artifacts)], folder / "artifacts")
        damage = next(_damage(folder), "")
        yield _found(root, run, functools.partial(_points_of_files, folder), *files, damage=damage)
    for folder, run in store.nameless_runs(root):
        damage = f"{folder / store.META}: it is missing, or does not say which run it is of"
        yield _found(root, run, functools.partial(_points_of_files, folder), {}, [], damage=damage)


def _damage(folder: Path) -> Iterator[str]:
    """Yield what is wrong with files of metrics, which are read up to there."""
    for path, batch in _batches(folder):
        if batch.damage:
            yield f"{path}: {batch.damage}"


def _points_of_files(folder: Path) -> Iterator[Point]:
    for _, batch in _batches(folder):
        yield from batch.items


def _batches(folder: Path) -> Iterator[tuple[Path, Batch[Point]]]:
    root = folder / "metrics"
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            position = 0
            while True:
                batch = store.read_metric(file, path.relative_to(root).as_posix(), position, _AT_ONCE_BYTES)
                yield path, batch
                if batch.damage or not batch.more or batch.next == position:
                    break
                position = batch.next


def _found(
    path: Path, run: TrackedRun, points: object, files: dict[str, Path], left_out: list[str], damage: str = ""
) -> Found:
    tags = run.tags
    labels = [f"{key}:{value}" if value else key for key, value in tags.items() if not key.startswith(_NO_LABELS)]
    program, description = tags.get("mlflow.source.name", ""), tags.get("mlflow.note.content", "")
    program = "" if program.startswith("#") else program  # a run that had been imported, and was written for MLflow
    spec, notices = spec_of(NAME, run, program=Path(program).name, description=description, labels=labels)
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
            notices=(*notices, *left_out, *filter(None, [damage])),
        ),
        title=run.name or run.key,
        points=points,  # type: ignore[arg-type]
        parent=f"{NAME}:{parent}" if parent else "",
        files=files,
        refusal=damage if damage or end else f"{path}: the run has no end: its status is {run.status.upper()}",
        is_gone=run.deleted,
    )


def _may_be_empty(uri: str) -> bool:
    """Whether there may be no artifacts: MLflow makes the folder of a run with the first one."""
    return urlsplit(uri).scheme in ("", "file", "mlflow-artifacts")


class _Places:
    """Finds artifacts: in the own folders of a store, and in those that the person names.

    Args:
        path: the database, or the folder of the store.
    """

    def __init__(self, path: Path, elsewhere: Sequence[Path]) -> None:
        self._base, self._elsewhere = path.absolute().parent, elsewhere
        beside = [self._base / store.FOLDER, self._base / _SERVED]
        self._own = [place for place in beside if is_within(place, [self._base])]  # neither may be a link to elsewhere
        if path.is_dir():
            self._own.append(path)
        elif self._base.name in (store.FOLDER, _SERVED):
            self._own.append(self._base)

    def files(self, wanted: Sequence[tuple[str, str]], own: Path | None = None) -> tuple[dict[str, Path], list[str]]:
        """Return files by their paths as outputs, and sentences about what was left out.

        Args:
            wanted: prefixes of those paths, and the URIs below which they are.
            own: where they are if that exists.
        """
        files: dict[str, Path] = {}
        notices: list[str] = []
        for prefix, uri in wanted:
            places = [own] if own and own.is_dir() else [*self._candidates(uri)]
            place = next((place for place in places if is_within(place, [*self._own, *self._elsewhere])), None)
            if place:
                below, more = files_below(place, [*self._own, *self._elsewhere])
                files |= {f"{prefix}{name}": file for name, file in below.items()}
                notices += more if is_within(place, self._own) else [f"Its artifacts were taken from {place}", *more]
            elif places:
                notices.append(f"Its artifacts lie outside of the store and were left out: {places[0]}; {ELSEWHERE}")
            elif prefix or not _may_be_empty(uri):
                notices.append(f"Its artifacts are not on this machine: {uri}")
        return files, notices

    def _candidates(self, uri: str) -> Iterator[Path]:
        """Yield the folders that are here and may be meant."""
        parts = urlsplit(uri)
        if not uri or not _may_be_empty(uri):
            return
        path = Path(unquote(parts.path) if parts.scheme else uri)
        if parts.scheme != "mlflow-artifacts" and path.is_absolute() and path.is_dir():
            yield path
        tail = path.parts[1:] if path.is_absolute() else path.parts
        for start in range(len(tail) - 1):
            for folder in (self._base, self._base / _SERVED, self._base / store.FOLDER, *self._elsewhere):
                with suppress(OSError):
                    if (place := folder.joinpath(*tail[start:])).is_dir():
                        yield place
