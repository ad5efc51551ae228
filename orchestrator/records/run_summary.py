"""Summaries of runs. A module of their own, as commands that list or follow runs load only this."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A line of `spell ps`.

    Attributes:
        waits_for: what a queued run waits for, in words; "" for others.
        wish: the stop request, `stop` or `kill` (`states.StopRequest`); None for none.
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
    waits_for: str = ""
