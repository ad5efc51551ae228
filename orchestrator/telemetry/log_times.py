"""Reads when a run's log grew, as its reaper recorded it; see `supervisor/log_times.py` for the format."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from orchestrator.records.logs import LogTime
from orchestrator.supervisor.log_times import ENTRY


def read(path: Path, after: int, limit: int) -> list[LogTime]:
    """Return the next `limit` entries with offsets above `after`; none if no times were recorded."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return []
    with file:
        count = os.fstat(file.fileno()).st_size // ENTRY.size
        low = _first(file, count, lambda offset, _micros: offset > after)
        file.seek(low * ENTRY.size)
        block = file.read(min(limit, count - low) * ENTRY.size)
    return [LogTime(offset, micros / 1e6) for offset, micros in ENTRY.iter_unpack(block)]


def reached_before(path: Path, moment: float) -> int | None:
    """Return the offset that the log had reached before a moment (seconds since the epoch); None if no times were recorded."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        count = os.fstat(file.fileno()).st_size // ENTRY.size
        place = _first(file, count, lambda _offset, micros: micros >= moment * 1e6)
        file.seek(max(0, place - 1) * ENTRY.size)
        return int(ENTRY.unpack(file.read(ENTRY.size))[0]) if place else 0


def _first(file: BinaryIO, count: int, is_beyond: Callable[[int, int], bool]) -> int:
    """Return the place of the first entry that is beyond something; offsets and times grow."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        file.seek(middle * ENTRY.size)
        if is_beyond(*ENTRY.unpack(file.read(ENTRY.size))):
            high = middle
        else:
            low = middle + 1
    return low
