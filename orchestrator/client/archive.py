"""The archive: runs that are out of the way, and kept."""

from __future__ import annotations

from orchestrator.client.transport import Transport, quote
from orchestrator.records import from_wire
from orchestrator.records.run_summary import RunSummary


class Archive:
    """Puts runs into the archive, and takes them out."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def add(self, reference: str) -> RunSummary:
        """Take a run that has ended out of lists and mounts; nothing of it is removed."""
        return from_wire(RunSummary, self._call("POST", f"/runs/{quote(reference)}/archive"))

    def remove(self, reference: str) -> RunSummary:
        """Bring an archived run back."""
        return from_wire(RunSummary, self._call("POST", f"/runs/{quote(reference)}/unarchive"))
