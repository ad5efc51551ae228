"""Puts times before the lines of a log. A separate record says when the log reached which size."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections import deque
from collections.abc import Iterator

from orchestrator.cli.output import show
from orchestrator.client.logs import Logs
from orchestrator.records.logs import LogTime
from orchestrator.records.runs import RunRecord
from orchestrator.states import FINAL

_HOLE = re.compile(
    rb"--- (\d+) bytes of the log are not kept: it grew beyond its limit ---\n"
)  # as `telemetry.logs` writes it


class Stamper:
    """Puts before each line the time when its first byte reached the log, in UTC.

    A line that is younger than a tenth of a second may have no recorded time yet, and gets the present time.

    Args:
        logs: read the times.
        run: of the log.
    """

    def __init__(self, logs: Logs, run: RunRecord) -> None:
        self._logs, self._number = logs, str(run.number)
        self._ended_at = run.ended_at if run.state in FINAL else None
        self._offset, self._begins = 0, True
        self._times: deque[LogTime] = deque()
        self._asked_at = -1
        self._has_any = True
        if run.state in FINAL and not self._logs.times(self._number, 0):
            self._has_any = False

    def begin(self, offset: int) -> None:
        """Set the offset at which the next bytes begin."""
        self._offset = offset

    def stamped(self, data: bytes) -> bytes:
        """Return the next bytes of the log, with times."""
        if not self._has_any:
            self._warn(data)
            return data
        found = []
        for line in _lines(data):
            if self._begins:
                found.append(stamp(self.time(self._offset)))
            found.append(line)
            hole = _HOLE.fullmatch(line)
            self._offset += int(hole[1]) - 1 if hole else len(line)  # a line feed came before it
            self._begins = line.endswith(b"\n")
        return b"".join(found)

    def _warn(self, data: bytes) -> None:
        if data and self._offset == 0:
            show.warn(f"Run {self._number} has no recorded times, so its lines are shown without them.")
        self._offset += len(data)

    def time(self, offset: int) -> float:
        """Return when the log became longer than `offset`, which must not fall from call to call."""
        while True:
            while self._times and self._times[0].offset <= offset:
                self._times.popleft()
            if self._times:
                return self._times[0].at
            if self._asked_at == offset:
                return time.time() if self._ended_at is None else self._ended_at
            self._asked_at = offset
            self._times.extend(self._logs.times(self._number, offset))


def _lines(data: bytes) -> Iterator[bytes]:
    """Yield lines that end only at line feeds."""
    place = 0
    while place < len(data):
        end = data.find(b"\n", place) + 1 or len(data)
        yield data[place:end]
        place = end


def stamp(at: float) -> bytes:
    """Return a time as it stands before a line."""
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.").encode() + b"%03dZ " % (moment.microsecond // 1000)
