"""The logs of runs, and the times of their growth. `client.runs.follow` follows a log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.client.transport import Transport, chunks, lines, quote
from orchestrator.records import from_wire
from orchestrator.records.logs import LogLine, LogTime

_TIMES = 10_000


@dataclass(frozen=True, slots=True)
class Log:
    """The output of a run, or the end of it.

    Attributes:
        chunks: its bytes, which can be read once.
        end: the offset in bytes at which they end.
        start: the one at which they begin.
    """

    chunks: Iterator[bytes]
    end: int
    start: int = 0

    def read(self) -> bytes:
        """Return all bytes at once."""
        return b"".join(self.chunks)


@dataclass(frozen=True, slots=True)
class FoundLines:
    """Lines that were found in a log.

    Attributes:
        lines: as they are found; they can be read once.
        end: the offset in bytes up to which the log was searched.
    """

    lines: Iterator[LogLine]
    end: int


class Logs:
    """Reads and searches logs as they are now."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(
        self,
        reference: int | str,
        lines: int | None = None,
        most_bytes: int | None = None,
        since: float | None = None,
    ) -> Log:
        """Return the output of a run's command.

        Args:
            lines: only the last lines, this many.
            most_bytes: only the last bytes of those, this many.
            since: only what it wrote since then, in seconds since the epoch.
        """
        limits = {"lines": lines, "most_bytes": most_bytes, "since": since}
        query = {name: value for name, value in limits.items() if value is not None}
        answer = self._transport.stream("GET", f"/runs/{quote(reference)}/log", params=query)
        return Log(chunks(answer), int(answer.headers["spell-log-end"]), int(answer.headers["spell-log-start"]))

    def search(
        self,
        reference: int | str,
        text: str,
        *,
        last: int | None = None,
        around: int = 0,
        since: float | None = None,
        times: bool = False,
    ) -> FoundLines:
        """Return the lines of a run's log that have a text. The server searches, a gigabyte in about a second.

        Args:
            text: what to look for; between slashes it is a regular expression: `/loss=\\d+/`, or `/nan/i` to ignore the case.
            last: only the last of the lines, this many.
            around: further lines before and after each, this many.
            since: only in what the run wrote since then, in seconds since the epoch.
            times: whether to return when each line was written.
        """
        limits = {"last": last, "since": since}
        query = {"text": text, "around": around, "times": "true" if times else "false"}
        query |= {name: value for name, value in limits.items() if value is not None}
        answer = self._transport.stream("GET", f"/runs/{quote(reference)}/log/search", params=query)
        found = (from_wire(LogLine, json.loads(line)) for line in lines(answer))
        return FoundLines(found, int(answer.headers["spell-log-end"]))

    def times(self, reference: int | str, after: int = 0) -> list[LogTime]:
        """Return the next times at which the run's log grew beyond offset `after` (bytes), 10,000 at most."""
        query = {"after": after, "limit": _TIMES}
        found = self._transport.call("GET", f"/runs/{quote(reference)}/log/times", params=query)
        return [from_wire(LogTime, item) for item in found]
