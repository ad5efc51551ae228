"""Logs of runs: read as a whole, from their end, or while they grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.home import Home
from orchestrator.lifecycle.context import Context
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.records.events import EventRecord
from orchestrator.records.logs import LogTime
from orchestrator.records.run_summary import RunSummary
from orchestrator.service.access import Access, Who
from orchestrator.store import Store
from orchestrator.telemetry import log_times, logs

_CHUNK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class LogTail:
    """A part of a log.

    Attributes:
        end: the offset where it ends.
        chunks: its bytes.
    """

    end: int
    chunks: Iterator[bytes]


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

    def tail(self, who: Who, reference: str, lines: int | None, most_bytes: int) -> LogTail:
        """The output of a run, byte for byte; the last `lines` lines if given, and at most `most_bytes` of them."""
        path = self._home.log(self._access.resolve(who, reference))
        end = path.stat().st_size if path.exists() else 0
        return LogTail(end, logs.tail(path, lines, end, most_bytes))

    def times(self, who: Who, reference: str, after: int, limit: int) -> list[LogTime]:
        """The next `limit` moments when the log of a run grew, beyond offset `after`."""
        return log_times.read(self._home.log_times(self._access.resolve(who, reference)), after, limit)

    def follow(self, who: Who, reference: str) -> Feed:
        """The events and logs of a run, to be read while it runs."""
        return Feed(self._store, self._home, self._scheduler, self._access.resolve(who, reference))
