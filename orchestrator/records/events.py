"""What the API answers about what happened to a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One thing that happened to a run. `kind` is `state`, `wish` (somebody asked it to end) or `notice`."""

    id: int
    run: int
    at: float
    kind: str
    state: str
    text: str
