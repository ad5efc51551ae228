"""What runs were made of, and what was made of them."""

from __future__ import annotations

from orchestrator.client.transport import Transport, quote
from orchestrator.records.compare import LineageRecord, lineage_from_wire


class Lineage:
    """Traces runs through their mounts."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def get(self, reference: str, *, up: bool = True, down: bool = True) -> LineageRecord:
        """What a run was made of (`up`), and what was made of it (`down`)."""
        query = {"up": up, "down": down}
        return lineage_from_wire(self._call("GET", f"/runs/{quote(reference)}/lineage", params=query))
