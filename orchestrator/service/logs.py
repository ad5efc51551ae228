"""Logs of runs: read as a whole, from their end, or while they grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.content.log_pattern import LogPattern
from orchestrator.errors import Conflict
from orchestrator.home import Home
from orchestrator.lifecycle.context import Context
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.records.events import EventRecord
from orchestrator.records.logs import LogLine, LogTime
from orchestrator.records.run_summary import RunSummary
from orchestrator.service.access import Access, Who
from orchestrator.store import Store
from orchestrator.telemetry import log_search, log_times, logs

_CHUNK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class LogTail:
    """A part of a log.

    Attributes:
        start, end: the offsets where it begins and ends.
        chunks: its bytes.
    """

    start: int
    end: int
    chunks: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class FoundLines:
    """Lines that were found in a log.

    Attributes:
        end: the offset up to which it was searched.
        lines: as they are found.
    """

    end: int
    lines: Iterator[LogLine]


class Feed:
    """The events and logs of one run, for a follower."""

    def __init__(self, store: Store, home: Home, scheduler: Scheduler, number: int) -> None:
        self._store, self._home, self._scheduler, self.number = store, home, scheduler, number

    def events(self, after: int) -> list[EventRecord]:
        """The events after the one with this id, in order."""
        return self._store.events(self.number, after)

    def log(self, offset: int) -> tuple[bytes, int]:
        """The next bytes of its log, and the offset where they end; b"" if there are none yet."""
        return logs.read(self._home.log(self.number), offset, _CHUNK_BYTES)

    def build_log(self, offset: int) -> tuple[bytes, int]:
        """The next bytes of its build log, as `log`."""
        return logs.read(self._home.build_log(self.number), offset, _CHUNK_BYTES)

    def waits_for(self) -> str:
        """What it waits for in the queue, in words; "" if for nothing."""
        return self._scheduler.waits_for(self.number)

    def summary(self) -> RunSummary:
        """The summary of the run."""
        return self._store.summary(self.number)


class Logs:
    """The logs of one home."""

    def __init__(self, context: Context, scheduler: Scheduler, access: Access) -> None:
        self._store, self._home, self._scheduler, self._access = context.store, context.home, scheduler, access

    def tail(self, who: Who, reference: str, lines: int | None, most_bytes: int, since: float | None = None) -> LogTail:
        """The output of a run, byte for byte; the last `lines` lines if given, and at most `most_bytes` of them.

        Args:
            since: only what it wrote since then, in seconds since the epoch.

        Raises:
            Conflict: `since` was given, and no times were recorded.
        """
        number = self._access.resolve(who, reference)
        path = self._home.log(number)
        end = _end(path)
        first = self._since(number, since, end)
        start = max(first, logs.start_of_last(path, lines, end, max(1, min(most_bytes, end - first))))
        return LogTail(start, end, logs.between(path, start, end))

    def search(
        self,
        who: Who,
        reference: str,
        text: str,
        *,
        last: int | None = None,
        around: int = 0,
        since: float | None = None,
        times: bool = False,
    ) -> FoundLines:
        """The lines of a log that have a text, or match an expression; see `log_search`.

        Args:
            text: as `LogPattern` reads it.
            last, around, times: see `log_search.Wanted`.
            since: as of `tail`.

        Raises:
            InvalidConfig: `text` cannot be searched for.
            Conflict: as `tail`.
        """
        number = self._access.resolve(who, reference)
        path = self._home.log(number)
        end = _end(path)
        pattern, span = LogPattern(text), (self._since(number, since, end), end)
        wanted = log_search.Wanted(last, around, times)
        return FoundLines(end, log_search.search(path, self._home.log_times(number), pattern, wanted, span))

    def _since(self, number: int, moment: float | None, end: int) -> int:
        """The offset of the first line, or state of a progress bar, that a run began to write after a moment."""
        if moment is None or not end:
            return 0
        offset = log_times.reached_before(self._home.log_times(number), moment)
        if offset is None:
            raise Conflict(
                f"Run {number} has no recorded times, so it is not known what it wrote since then.",
                f"Ask for its last lines: spell logs -n 100 {number}",
            )
        return log_search.aligned(self._home.log(number), min(offset, end), end)

    def times(self, who: Who, reference: str, after: int, limit: int) -> list[LogTime]:
        """The next `limit` moments when the log of a run grew, beyond offset `after`."""
        return log_times.read(self._home.log_times(self._access.resolve(who, reference)), after, limit)

    def follow(self, who: Who, reference: str) -> Feed:
        """The events and logs of a run, to be read while it runs."""
        return Feed(self._store, self._home, self._scheduler, self._access.resolve(who, reference))


def _end(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
