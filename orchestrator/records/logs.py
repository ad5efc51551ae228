"""Times of a run's log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogTime:
    """The moment when a run's log had a size.

    Attributes:
        offset: the bytes that the log had then.
        at: seconds since the epoch.
    """

    offset: int
    at: float
