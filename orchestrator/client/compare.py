"""Runs of a server compared, traced and verified."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.client.transport import Transport, chunks, lines, quote
from orchestrator.errors import ServerUnavailable
from orchestrator.records.compare import (
    DiffRecord,
    LineageRecord,
    VerifyRecord,
    diff_from_wire,
    lineage_from_wire,
    verify_from_wire,
)

_LIMIT_S = 60.0
_VERIFY_LIMIT_S = 3600.0  # one file that is very big


@dataclass(frozen=True, slots=True)
class Exported:
    """A run that is being exported.

    Attributes:
        size_bytes: of all its files.
        warnings: what is not as it was.
        chunks: of a tar archive; everything in it is below `run-N/`, and its last file is `SHA256SUMS`.
    """

    run: int
    size_bytes: int
    warnings: list[str]
    chunks: Iterator[bytes]


class Comparisons:
    """Compares runs, traces and verifies them. A run is meant by its number, its name, or `latest`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def diff(self, before: str, after: str, sections: Sequence[str] = ()) -> DiffRecord:
        """What differs between two runs; of `compare.SECTIONS`, only these when any are named."""
        path = f"/runs/{quote(before)}/diff/{quote(after)}"
        query = {"section": list(sections)}
        return diff_from_wire(self._transport.call("GET", path, params=query, read_limit_s=_LIMIT_S))

    def lineage(self, reference: str, *, up: bool = True, down: bool = True) -> LineageRecord:
        """What a run was made of (`up`), and what was made of it (`down`)."""
        query = {"up": up, "down": down}
        return lineage_from_wire(self._transport.call("GET", f"/runs/{quote(reference)}/lineage", params=query))

    def verify(self, reference: str, told: Callable[[int, int], object] = lambda _done, _total: None) -> VerifyRecord:
        """Compare the outputs of a run with its manifest.

        Args:
            told: called now and then, with the number of bytes that are done, and of all.
        """
        answer = self._transport.stream("POST", f"/runs/{quote(reference)}/verify", read_limit_s=_VERIFY_LIMIT_S)
        for line in lines(answer):
            words = json.loads(line)
            if "done" in words:
                told(words["done"], words["total"])
            else:
                return verify_from_wire(words)
        raise ServerUnavailable("The server ended before everything was read.", "See: spell server logs")

    def export(self, reference: str, *, inputs: bool = False, outputs: bool = False) -> Exported:
        """A run with all it takes to run it without spell.

        Args:
            inputs: also what it mounted.
            outputs: also what it left.
        """
        query = {"inputs": inputs, "outputs": outputs}
        path = f"/runs/{quote(reference)}/export"
        answer = self._transport.stream("GET", path, params=query, read_limit_s=_LIMIT_S)
        told = answer.headers
        return Exported(
            int(told["spell-run"]), int(told["spell-total-bytes"]), json.loads(told["spell-warnings"]), chunks(answer)
        )
