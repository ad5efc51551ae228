"""Offline runs of Weights & Biases: folders `offline-run-TIME-ID` with `run-ID.wandb` and `files/`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.errors import NotFound, SpellError
from orchestrator.formats import wandb_log as logs
from orchestrator.formats.records import Point
from orchestrator.records.imports import ImportedRun
from orchestrator.trackers.found import Found, files_below
from orchestrator.trackers.words import flattened, spec_of

NAME = "wandb"
_AT_ONCE_BYTES = 4 << 20
_LOG, _PACKAGES = "output.log", "requirements.txt"


def find(path: Path, elsewhere: Sequence[Path] = ()) -> Iterator[Found]:
    """Yield the runs of a file, of the folder of a run, of a folder `wandb`, or of a folder with one.

    Raises:
        NotFound: there is none.
    """
    if path.is_file():
        yield _found(path, elsewhere)
        return
    for pattern in (f"*{logs.SUFFIX}", f"*run-*/*{logs.SUFFIX}", f"wandb/*run-*/*{logs.SUFFIX}"):
        if files := sorted(file for file in path.glob(pattern) if not file.parent.is_symlink()):
            runs = (_found(file, elsewhere) for file in files)
            yield from sorted(runs, key=lambda found: found.run.started_at or 0.0)
            return
    raise NotFound(f"{path} holds no run of wandb.", "Name the folder wandb, or one offline-run-… in it.")


def _records(path: Path, damage: list[str]) -> Iterator[logs.Record]:
    """Yield all records that can be read; what is wrong is added to `damage`."""
    position = 0
    try:
        with path.open("rb") as file:
            while True:
                batch = logs.read(file, position, _AT_ONCE_BYTES)
                yield from batch.items
                if batch.damage:
                    damage.append(batch.damage)
                if not batch.more or batch.next == position:
                    if not damage and batch.next < path.stat().st_size:
                        damage.append(f"its last record, at byte {batch.next}, is cut off")
                    return
                position = batch.next
    except OSError as error:
        raise SpellError(f"{path}: {error.strerror}.") from error


def _points(path: Path) -> Iterator[Point]:
    for record in _records(path, []):
        if record.kind == "history":
            yield from logs.points(record)


def _found(path: Path, elsewhere: Sequence[Path]) -> Found:
    state, damage = logs.RunState(), list[str]()
    for record in _records(path, damage):
        state.add(record)
    run = state.result()
    run_words = state.run
    labels = [*run.tags, *(f"{key}:{run_words[key]}" for key in ("group", "job_type") if run_words.get(key))]
    tracked = type(run)(
        key=run.key, name=run.name, project=run.project, parameters=flattened(run.parameters), started_at=run.started_at
    )
    spec, notices = spec_of(NAME, tracked, description=run_words.get("notes", ""), labels=labels)
    files, more = files_below(path.parent / "files", (path.parent, *elsewhere))
    log, packages = files.pop(_LOG, None), files.get(_PACKAGES)
    key = run.key or path.stem.removeprefix("run-")
    end = {0: "complete", None: "unfinished"}.get(state.exit_code, "failed")
    return Found(
        ImportedRun(
            origin=f"{NAME}:{run.project}/{key}@{run.started_at or 0:.0f}",  # a run that goes on has the same key
            tracker=NAME,
            project=run.project,
            path=str(path.absolute()),
            spec=spec,
            reason=f"imported_{end}",
            started_at=run.started_at,
            ended_at=state.last_at,
            exit_code=state.exit_code,
            packages=tuple(_packages(packages)) if packages else (),
            notices=(*notices, *more, *damage),
        ),
        title=run.name or key,
        points=functools.partial(_points, path),
        files=files,
        log=log,
        refusal=_refusal(path, state, damage),
    )


def _refusal(path: Path, state: logs.RunState, damage: list[str]) -> str:
    if not state.run:
        return f"{path}: " + (damage[0] if damage else "nothing was written to it yet")
    if damage:
        return f"{path}: {damage[0]}"
    return "" if state.exit_code is not None else f"{path}: the run has no end: it still runs, or was killed"


def _packages(path: Path) -> Iterator[str]:
    for line in path.read_text("utf-8", "replace").splitlines():
        name, equals, version = line.strip().partition("==")
        if equals and name and version and " " not in line.strip():
            yield f"{name}=={version}"
