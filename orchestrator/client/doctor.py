"""Checks of the server's machine."""

from __future__ import annotations

from orchestrator.client.transport import Transport
from orchestrator.records import from_wire
from orchestrator.records.machines import CheckRecord

_LIMIT_S = 12.0


class Doctor:
    """Checks the server's machine."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def examine(self) -> list[CheckRecord]:
        """Return all checks, each with its result and cure."""
        return [from_wire(CheckRecord, item) for item in self._call("GET", "/doctor", read_limit_s=_LIMIT_S)]
