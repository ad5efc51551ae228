"""What is watched of a server's runs: metrics page by page, and the times of their logs."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.client.transport import Transport, quote
from orchestrator.records import from_wire
from orchestrator.records.logs import LogTime
from orchestrator.records.metrics import MetricPage, MetricRecord, MetricSummary, page_from_wire

_PAGE = 10_000


class Watching:
    """Reads what runs sent and when they said it, up to this moment."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def metric_summaries(self, reference: str) -> list[MetricSummary]:
        """One line for each metric of a run, by name."""
        found = self._call("GET", f"/runs/{quote(reference)}/metrics/summary")
        return [from_wire(MetricSummary, item) for item in found]

    def metric_page(self, reference: str, after: int = 0, limit: int = _PAGE) -> MetricPage:
        """The next values that a run has sent; go on with `after` = `next`."""
        query = {"after": after, "limit": limit}
        return page_from_wire(self._call("GET", f"/runs/{quote(reference)}/metrics/page", params=query))

    def metrics(self, reference: str) -> Iterator[MetricRecord]:
        """All values that a run has sent by now; only a page of them is in memory."""
        after = 0
        while (page := self.metric_page(reference, after)).values:
            yield from page.values
            after = page.next

    def log_times(self, reference: str, after: int) -> list[LogTime]:
        """When the run's log grew beyond offset `after`: the next of these moments, not all."""
        query = {"after": after, "limit": _PAGE}
        found = self._call("GET", f"/runs/{quote(reference)}/log/times", params=query)
        return [from_wire(LogTime, item) for item in found]
