"""The server itself."""

from __future__ import annotations

from orchestrator.client.transport import Transport
from orchestrator.records import from_wire
from orchestrator.records.machines import ServerRecord


class Server:
    """Shows and stops the server, whatever version of the API it speaks: an old one could not be replaced otherwise."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def get(self) -> ServerRecord:
        """Return the record of the server that answers."""
        return from_wire(ServerRecord, self._call("GET", "/server", any_version=True))

    def stop(self) -> None:
        """Stop the server. Active runs go on."""
        self._call("POST", "/server/stop", any_version=True)
