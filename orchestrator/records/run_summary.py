"""What the API answers about a run in short: a line of `spell ps`. Whoever lists or follows runs loads no more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A line of `spell ps`.

    Attributes:
        wish: `stop` or `kill`, once somebody asked for it (`states.StopRequest`).
    """

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
