"""The logs of runs, and the times of their growth. `client.runs.follow` follows a log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.client.transport import Transport, chunks, quote
from orchestrator.records import from_wire
from orchestrator.records.logs import LogTime

_TIMES = 10_000


@dataclass(frozen=True, slots=True)
class Log:
    """The output of a run, or the end of it.

    Attributes:
        chunks: its bytes, which can be read once.
        end: the offset in bytes at which they end.
    """

    chunks: Iterator[bytes]
    end: int

    def read(self) -> bytes:
        """Return all bytes at once."""
        return b"".join(self.chunks)


class Logs:
    """Reads logs as they are now."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, reference: int | str, lines: int | None = None, most_bytes: int | None = None) -> Log:
        """Return the output of a run's command.

        Args:
            lines: only the last lines, this many.
            most_bytes: only the last bytes of those, this many.
        """
        limits = {"lines": lines, "most_bytes": most_bytes}
        query = {name: value for name, value in limits.items() if value is not None}
        answer = self._transport.stream("GET", f"/runs/{quote(reference)}/log", params=query)
        return Log(chunks(answer), int(answer.headers["spell-log-end"]))

    def times(self, reference: int | str, after: int = 0) -> list[LogTime]:
        """Return the next times at which the run's log grew beyond offset `after` (bytes), 10,000 at most."""
        query = {"after": after, "limit": _TIMES}
        found = self._transport.call("GET", f"/runs/{quote(reference)}/log/times", params=query)
        return [from_wire(LogTime, item) for item in found]
