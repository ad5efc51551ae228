"""The server itself."""

from __future__ import annotations

from orchestrator.client.transport import Transport
from orchestrator.records import from_wire
from orchestrator.records.machines import ServerRecord


class Server:
    """Asks the server about itself, and ends it."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def get(self) -> ServerRecord:
        """Which server answers."""
        return from_wire(ServerRecord, self._call("GET", "/server"))

    def stop(self) -> None:
        """Ask the server to end; active runs go on."""
        self._call("POST", "/server/stop")
