"""Runs of a server: lists of them, their labels, and the archive."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from orchestrator.client.transport import Transport, quote
from orchestrator.records import from_wire
from orchestrator.records.run_summary import RunSummary
from orchestrator.spec.filters import Filter

_WORDS = {"states": "state", "labels": "label", "machine_types": "machine_type", "metrics": "metric"}


class Runs:
    """Finds runs, and keeps order among them. A run is meant by its number, its name, `latest` or `latest~1`."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def list(
        self, wanted: Filter | None = None, sort: str = "", *, limit: int = 50, before: int = 0, skip: int = 0
    ) -> list[RunSummary]:
        """Runs that match, the last `limit` of them in this order.

        Args:
            sort: see `orchestrator.spec.filters`; the newest comes last for "".
            before: only runs with smaller numbers (for paging); 0 for no bound.
            skip: leave out so many at the end (for paging where they are sorted otherwise).

        Raises:
            UsageError, InvalidConfig: what cannot be asked.
        """
        asked = dataclasses.asdict(wanted or Filter())
        query = {_WORDS.get(name, name): value for name, value in asked.items()}
        query |= {"sort": sort, "limit": limit, "before": before, "skip": skip}
        return [from_wire(RunSummary, item) for item in self._call("GET", "/runs", params=query)]

    def label(self, reference: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> RunSummary:
        """Give a run labels, and take others from it."""
        body = {"add": list(add), "remove": list(remove)}
        return from_wire(RunSummary, self._call("POST", f"/runs/{quote(reference)}/labels", json=body))

    def archive(self, reference: str) -> RunSummary:
        """Take a run that has ended out of lists and mounts; nothing of it is removed."""
        return from_wire(RunSummary, self._call("POST", f"/runs/{quote(reference)}/archive"))

    def unarchive(self, reference: str) -> RunSummary:
        """Bring an archived run back."""
        return from_wire(RunSummary, self._call("POST", f"/runs/{quote(reference)}/unarchive"))
