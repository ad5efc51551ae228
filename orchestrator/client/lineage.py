"""Lineage of runs through their mounts."""

from __future__ import annotations

from orchestrator.client.transport import Transport, quote
from orchestrator.records.compare import LineageRecord, lineage_from_wire


class Lineage:
    """Traces the lineage of runs."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def get(self, reference: int | str, *, up: bool = True, down: bool = True) -> LineageRecord:
        """Return the lineage of a run.

        Args:
            up: include the runs and uploads that it mounted, and theirs.
            down: include the runs that mounted its outputs, and so on.
        """
        query = {"up": up, "down": down}
        return lineage_from_wire(self._call("GET", f"/runs/{quote(reference)}/lineage", params=query))
