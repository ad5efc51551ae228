"""Metrics of runs."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.client.transport import Transport, quote
from orchestrator.records import from_wire
from orchestrator.records.metrics import MetricPage, MetricRecord, MetricSummary, page_from_wire

_PAGE = 10_000


class Metrics:
    """Reads the values that runs have sent until now."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def summaries(self, reference: int | str) -> list[MetricSummary]:
        """Return a summary of each metric of a run, by name."""
        found = self._call("GET", f"/runs/{quote(reference)}/metrics/summary")
        return [from_wire(MetricSummary, item) for item in found]

    def page(self, reference: int | str, after: int = 0, limit: int = _PAGE) -> MetricPage:
        """Return the next values of a run.

        Args:
            after: `next` of the page before; 0 for the first page.
            limit: maximum number of values.
        """
        query = {"after": after, "limit": limit}
        return page_from_wire(self._call("GET", f"/runs/{quote(reference)}/metrics/page", params=query))

    def each(self, reference: int | str) -> Iterator[MetricRecord]:
        """Yield the values of a run, with only one page in memory."""
        after = 0
        while (page := self.page(reference, after)).values:
            yield from page.values
            after = page.next

    def list(self, reference: int | str, name: str = "") -> list[MetricRecord]:
        """Return the values of a run: of one metric, or of all if `name` is empty."""
        found = self._call("GET", f"/runs/{quote(reference)}/metrics", params={"name": name})
        return [from_wire(MetricRecord, item) for item in found]
