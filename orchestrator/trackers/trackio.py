"""Runs of Trackio: `PROJECT.db` for each project, in `~/.cache/huggingface/trackio` or `$TRACKIO_DIR`.

Trackio does not record that a run has ended: one that has just written counts as running.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.errors import InvalidConfig, NotFound
from orchestrator.formats import trackio_store as store
from orchestrator.formats.records import Point, TrackedRun
from orchestrator.formats.sqlite_file import Unreadable, opened
from orchestrator.records.imports import ImportedRun
from orchestrator.trackers.found import Found, files_below, is_within
from orchestrator.trackers.words import flattened, spec_of

NAME = "trackio"
_LIMIT_S = 3600.0
_AT_ONCE = 10_000
_QUIET_S = 120.0  # after this time without a value a run counts as ended


def find(path: Path, elsewhere: Sequence[Path] = ()) -> Iterator[Found]:
    """Yield the runs of a database, or of all databases of a folder.

    Raises:
        NotFound: there is none.
        InvalidConfig: one is damaged, or is none of Trackio's.
    """
    files = [path] if path.is_file() else sorted(path.glob(f"*{store.SUFFIX}"))
    if not files:
        raise NotFound(
            f"{path} holds no database of Trackio.", "They are in $TRACKIO_DIR, or in ~/.cache/huggingface/trackio."
        )
    found = [(file, runs) for file in files if (runs := _runs(file)) is not None]
    if not found:
        raise InvalidConfig(f"{files[0]} is no database of Trackio.", "Name its PROJECT.db, or its folder.")
    every = (_found(file, run, elsewhere) for file, runs in found for run in runs)
    yield from sorted(every, key=lambda item: item.run.started_at or 0.0)


def _runs(path: Path) -> list[TrackedRun] | None:
    """Return the runs of a database; None when it is none of Trackio's."""
    try:
        with opened(path, _LIMIT_S) as database:
            return store.runs(database) if store.is_store(database) else None
    except Unreadable as error:
        raise InvalidConfig(f"{path} cannot be read: {error}.", "Take a copy from a backup.") from error


def _points(path: Path, key: str) -> Iterator[Point]:
    position = 0
    try:
        with opened(path, _LIMIT_S) as database:
            while rows := store.points(database, position, _AT_ONCE, key):
                position = rows[-1].position
                yield from (point for row in rows for point in row.points)
    except Unreadable as error:
        raise InvalidConfig(f"{path} cannot be read: {error}.", "Take a copy from a backup.") from error


def _found(path: Path, run: TrackedRun, elsewhere: Sequence[Path]) -> Found:
    flat = dataclasses.replace(run, parameters=flattened(run.parameters), project=path.stem)
    spec, notices = spec_of(NAME, flat, labels=[f"{key}:{value}" for key, value in run.tags.items()])
    files, more = _media(path, run.name, elsewhere) if run.name else ({}, [])
    quiet_s = time.time() - (run.ended_at or run.started_at or 0.0)
    is_quiet = quiet_s > _QUIET_S or quiet_s < 0
    return Found(
        ImportedRun(
            # projects and runs of old databases have names only, which another folder may have, too
            origin=f"{NAME}:{path.stem}/{run.key}@{run.started_at or 0:.6f}",
            tracker=NAME,
            project=path.stem,
            path=str(path.absolute()),
            spec=spec,
            reason="imported_complete" if is_quiet else "imported_unfinished",
            started_at=run.started_at,
            ended_at=run.ended_at,
            notices=(*notices, *more),
        ),
        title=run.name or run.key,
        points=functools.partial(_points, path, run.key),
        files=files,
        refusal="" if is_quiet else f"{path}: the run may have no end: its last value came {quiet_s:.0f} s ago",
    )


def _media(path: Path, name: str, elsewhere: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """Return the files that a run has logged. Its name is a word of the database, and may be a path."""
    own = path.parent / "media" / path.stem
    return files_below(own / name, (*([own] if is_within(own, [path.parent]) else []), *elsewhere))
