"""Events of runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event of a run. `kind` is `state`, `wish` (a stop request) or `notice`."""

    id: int
    run: int
    at: float
    kind: str
    state: str
    text: str
