"""Metrics of runs. Each read first ingests the metrics that the run has sent, so it returns all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.lifecycle.context import Context
from orchestrator.records.metrics import MetricPage, MetricRecord, MetricSummary
from orchestrator.service.access import Access, Who
from orchestrator.states import FINAL
from orchestrator.store import Store
from orchestrator.telemetry.metrics import ingest_metrics

_AT_ONCE = 10_000


class Metrics:
    """The metrics of one home."""

    def __init__(self, context: Context, access: Access) -> None:
        self._store, self._home, self._access = context.store, context.home, access

    def list(self, who: Who, reference: str, name: str = "") -> Iterator[Sequence[MetricRecord]]:
        """The metrics of a run, of one name or all, in pages. Raises at once, as `Access.resolve`."""
        return self.pages(self._access.resolve(who, reference), name)

    def summaries(self, who: Who, reference: str) -> Sequence[MetricSummary]:
        """One line for each metric of a run."""
        number = self._access.resolve(who, reference)
        return self._ingested(number).metric_summaries(number)

    def page(self, who: Who, reference: str, after: int, limit: int) -> MetricPage:
        """At most `limit` values that a run has sent, after the position `after`."""
        number = self._access.resolve(who, reference)
        over = self._store.summary(number).state in FINAL  # read first: a value before its end is then not missed
        found = self._ingested(number).metrics_after(number, after, limit)
        values, end = [item for _, item in found], found[-1][0] if found else after
        return MetricPage(values, end, over and len(found) < limit)

    def pages(self, number: int, name: str = "") -> Iterator[Sequence[MetricRecord]]:
        """The metrics of a run, of one name or all, in pages."""
        return _pages(self._ingested(number), number, name)

    def last(self, number: int) -> dict[str, float]:
        """The last value of each metric of a run."""
        return self._ingested(number).lineage.last_metrics(number)

    def value(self, number: int, name: str, aggregation: str) -> float | None:
        """The value by which a search compares a run: see `SearchStore.value`."""
        return self._ingested(number).searches.value(number, name, aggregation)

    def _ingested(self, number: int) -> Store:
        """The store, after ingesting all metrics that this run has sent. Every read goes through here."""
        ingest_metrics(self._store, self._home, number)
        return self._store


def _pages(store: Store, number: int, name: str) -> Iterator[Sequence[MetricRecord]]:
    position = 0
    while page := store.metrics_after(number, position, _AT_ONCE, name):
        position = page[-1][0]
        yield [item for _, item in page]
