"""What the API answers about the log of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogTime:
    """When a run's log had grown to a size.

    Attributes:
        offset: bytes of the log that were written by then.
        at: seconds since the epoch.
    """

    offset: int
    at: float
