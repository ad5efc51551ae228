"""Logs of runs: read as a whole, from their end, or followed while they grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.home import Home
from orchestrator.lifecycle.context import Context
from orchestrator.records.events import EventRecord
from orchestrator.records.logs import LogTime
from orchestrator.records.run_summary import RunSummary
from orchestrator.service.access import Access, Who
from orchestrator.store import Store
from orchestrator.telemetry import log_times, logs

_CHUNK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class LogTail:
    """What is sent of a log.

    Attributes:
        end: the offset up to which it goes.
        chunks: its bytes.
    """

    end: int
    chunks: Iterator[bytes]


class Feed:
    """What a follower reads of one run."""

    def __init__(self, store: Store, home: Home, number: int) -> None:
        self._store, self._home, self.number = store, home, number

    def events(self, after: int) -> list[EventRecord]:
        """What happened after the event with this id, in order."""
        return self._store.events(self.number, after)

    def log(self, offset: int) -> tuple[bytes, int]:
        """The next bytes of its log, and where they end; b"" when there are no more yet."""
        return logs.read(self._home.log(self.number), offset, _CHUNK_BYTES)

    def build_log(self, offset: int) -> tuple[bytes, int]:
        """The next bytes of its build log, likewise."""
        return logs.read(self._home.build_log(self.number), offset, _CHUNK_BYTES)

    def summary(self) -> RunSummary:
        """The run in short."""
        return self._store.summary(self.number)


class Logs:
    """The logs of one home."""

    def __init__(self, context: Context, access: Access) -> None:
        self._store, self._home, self._access = context.store, context.home, access

    def tail(self, who: Who, reference: str, lines: int | None, most_bytes: int) -> LogTail:
        """The output of a run, byte for byte; only its last `lines` lines when given, and `most_bytes` of those."""
        path = self._home.log(self._access.resolve(who, reference))
        end = path.stat().st_size if path.exists() else 0
        return LogTail(end, logs.tail(path, lines, end, most_bytes))

    def times(self, who: Who, reference: str, after: int, limit: int) -> list[LogTime]:
        """When the log of a run grew beyond offset `after`; the next `limit` times."""
        return log_times.read(self._home.log_times(self._access.resolve(who, reference)), after, limit)

    def follow(self, who: Who, reference: str) -> Feed:
        """All that happens to a run, and all that it writes, read as it comes."""
        return Feed(self._store, self._home, self._access.resolve(who, reference))
