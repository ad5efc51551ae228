"""Reads when a run's log grew, as its reaper recorded it; see `supervisor/log_times.py` for the format."""

from __future__ import annotations

import os
from pathlib import Path

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
        low, high = 0, count
        while low < high:  # offsets grow
            middle = (low + high) // 2
            file.seek(middle * ENTRY.size)
            if ENTRY.unpack(file.read(ENTRY.size))[0] <= after:
                low = middle + 1
            else:
                high = middle
        file.seek(low * ENTRY.size)
        block = file.read(min(limit, count - low) * ENTRY.size)
    return [LogTime(offset, micros / 1e6) for offset, micros in ENTRY.iter_unpack(block)]
