"""Imported runs: what a client sends of one, and its origin as it is recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRun:
    """A run of a tracker of experiments, as it is sent to be recorded. Its files follow it.

    Attributes:
        origin: identifies it among all runs of all trackers; it is imported once.
        tracker: `mlflow`, `wandb` or `trackio`.
        project: its project or experiment there.
        path: where it was read.
        spec: its parameters, name, labels, description and project, as a spec. Its command cannot be run.
        reason: an end reason of `states.ENDS` that begins with `imported_`.
        started_at, ended_at: in seconds since the epoch.
        notices: sentences about what was left out.
    """

    origin: str
    tracker: str
    project: str
    path: str
    spec: dict[str, Any] = field(repr=False)
    reason: str
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    commit: str = ""
    python: str = ""
    packages: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRecord:
    """Where a run was imported from, and when; the other fields are those of `ImportedRun`."""

    run: int
    origin: str
    tracker: str
    project: str
    path: str
    at: float
