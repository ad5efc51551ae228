"""Hyperparameter searches."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.client.transport import Transport, quote
from orchestrator.errors import NotFound, SnapshotMissing
from orchestrator.records import from_wire
from orchestrator.records.searches import SearchCastRecord, SearchRecord, SearchSummary, search_from_wire
from orchestrator.spec.run import to_wire
from orchestrator.spec.search import SearchSpec


class Searches:
    """Casts, lists and ends searches. A search is named by its number, or `latest`."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self._call = transport, transport.call

    def cast(self, search: SearchSpec, send_code: Callable[[], object] | None = None) -> SearchCastRecord:
        """Cast a search.

        Args:
            send_code: called if the server lacks the code; then the search is cast again.

        Raises:
            SpellError: of the class that the server raised.
        """
        body = to_wire(search)
        try:
            return from_wire(SearchCastRecord, self._transport.cast("/searches", body))
        except SnapshotMissing:
            if send_code is None:
                raise
        send_code()
        return from_wire(SearchCastRecord, self._transport.cast("/searches", body))

    def list(self, *, limit: int = 50, before: int = 0) -> list[SearchSummary]:
        """Return the newest `limit` searches with smaller numbers than `before` (0 for no bound), newest last."""
        found = self._call("GET", "/searches", params={"limit": limit, "before": before})
        return [from_wire(SearchSummary, item) for item in found]

    def get(self, reference: int | str) -> SearchRecord:
        """Return the whole record of one search."""
        return search_from_wire(self._call("GET", _path(reference)))

    def stop(self, reference: int | str) -> SearchRecord:
        """Stop the runs of its trials and keep their outputs. No further trial starts."""
        return search_from_wire(self._transport.change(_path(reference), "stop", wish="stop"))

    def kill(self, reference: int | str) -> SearchRecord:
        """End the runs of its trials at once; their outputs are lost. No further trial starts."""
        return search_from_wire(self._transport.change(_path(reference), "kill", wish="kill"))

    def resume(self, reference: int | str) -> SearchRecord:
        """Continue a search that has ended: cast failed trials again, and those that were never cast."""
        return search_from_wire(self._call("POST", _path(reference) + "/resume"))


def _path(reference: int | str) -> str:
    try:
        return f"/searches/{quote(reference)}"
    except NotFound:
        raise NotFound(f"There is no search {reference!r}.", "See them with: spell hyper list") from None
