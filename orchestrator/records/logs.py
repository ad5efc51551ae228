"""Times of a run's log, and lines that were found in it."""

from __future__ import annotations

from dataclasses import dataclass

MAX_LAST, MAX_AROUND = 100_000, 1000
"""The most lines that can be asked for when only the last are wanted, and around each."""


@dataclass(frozen=True, slots=True)
class LogTime:
    """The moment when a run's log had a size.

    Attributes:
        offset: the bytes that the log had then.
        at: seconds since the epoch.
    """

    offset: int
    at: float


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that was looked for in a log, or one beside it.

    Attributes:
        line: the number of its line, from 1. States of a progress bar, which `\\r` separates, are of one line.
        offset: where it begins in the log, in bytes.
        size: its bytes.
        text: its text, at most the first 64 KiB of it.
        at: when the log grew beyond its first byte, in seconds since the epoch; null if that is not known, or was not asked.
        is_hit: whether it has what was looked for.
    """

    line: int
    offset: int
    size: int
    text: str
    at: float | None
    is_hit: bool
