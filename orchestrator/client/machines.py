"""The machine types of a server."""

from __future__ import annotations

from orchestrator.client.transport import Transport
from orchestrator.records import from_wire
from orchestrator.records.machines import MachineRecord


class Machines:
    """Lists machine types."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def list(self) -> list[MachineRecord]:
        """Return all machine types, and how many more runs of each could start now."""
        return [from_wire(MachineRecord, item) for item in self._call("GET", "/machine-types")]
