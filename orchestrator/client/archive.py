"""The archive: runs that lists hide, and that are kept."""

from __future__ import annotations

from orchestrator.client.transport import Transport, quote
from orchestrator.records import from_wire
from orchestrator.records.run_summary import RunSummary


class Archive:
    """Archives and unarchives runs."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def add(self, reference: int | str) -> RunSummary:
        """Hide a run that has ended from lists and mounts. Nothing is removed."""
        return from_wire(RunSummary, self._call("POST", f"/runs/{quote(reference)}/archive", may_repeat=True))

    def remove(self, reference: int | str) -> RunSummary:
        """Unarchive a run."""
        return from_wire(RunSummary, self._call("POST", f"/runs/{quote(reference)}/unarchive", may_repeat=True))
