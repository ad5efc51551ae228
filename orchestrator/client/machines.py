"""The machine types of a server."""

from __future__ import annotations

from orchestrator.client.transport import Transport
from orchestrator.records import from_wire
from orchestrator.records.machines import MachineRecord


class Machines:
    """Lists what runs can ask for."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def list(self) -> list[MachineRecord]:
        """All machine types, and how many more runs of each would start now."""
        return [from_wire(MachineRecord, item) for item in self._call("GET", "/machine-types")]
