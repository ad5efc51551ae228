"""The archive: runs that lists hide, and that are kept."""

from __future__ import annotations

from orchestrator.client.transport import Transport, quote
from orchestrator.records import from_wire
from orchestrator.records.run_summary import RunSummary


class Archive:
    """Archives and unarchives runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(self, reference: int | str) -> RunSummary:
        """Hide a run that has ended from lists and mounts. Nothing is removed."""
        return self._change(reference, "archive", archived=True)

    def remove(self, reference: int | str) -> RunSummary:
        """Unarchive a run."""
        return self._change(reference, "unarchive", archived=False)

    def _change(self, reference: int | str, verb: str, *, archived: bool) -> RunSummary:
        path = f"/runs/{quote(reference)}"
        if not str(reference).isdecimal():  # of an archived run, `latest` is the one before: it must not be sent again
            path = f"/runs/{self._transport.call('GET', path)['number']}"
        return from_wire(RunSummary, self._transport.change(path, verb, archived=archived))
