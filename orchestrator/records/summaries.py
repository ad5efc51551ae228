"""What the API answers about runs in short: a line of `spell ps`, and what happened. Who follows a run needs no more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A line of `spell ps`."""

    number: int
    name: str
    state: str
    wish: str | None
    command: str
    description: str
    labels: list[str]
    machine_type: str
    executor: str
    repository: str
    commit: str
    dirty: bool
    project: str
    archived: bool
    created_at: float
    started_at: float | None
    ended_at: float | None
    duration_s: float | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    message: str


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One thing that happened to a run. `kind` is `state`, `wish` or `notice`."""

    id: int
    run: int
    at: float
    kind: str
    state: str
    text: str
