"""Current CPU, memory and GPU use of runs."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.client.transport import Transport, quote
from orchestrator.records import from_wire
from orchestrator.records.runs import SampleRecord, StatRecord
from orchestrator.spec.type_checks import several


class Stats:
    """Measures running runs."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def list(self, references: Sequence[int | str] = ()) -> list[StatRecord]:
        """Return the current use of these runs, or of all running runs if none is named."""
        query = {"run": several("references", references)}
        return [from_wire(StatRecord, item) for item in self._call("GET", "/stats", params=query)]

    def samples(self, reference: int | str) -> Sequence[SampleRecord]:
        """Return the samples that were taken of a run, in order of time."""
        return [from_wire(SampleRecord, item) for item in self._call("GET", f"/runs/{quote(reference)}/samples")]
