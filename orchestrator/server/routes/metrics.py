"""Metrics of runs: all values, summaries, or pages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from orchestrator.records.metrics import MetricPage, MetricRecord, MetricSummary
from orchestrator.server.dependencies import Person, TheService, answer
from orchestrator.spec.run import to_wire

router = APIRouter()
_Position = Annotated[int, Query(ge=0, lt=1 << 63)]
_Limit = Annotated[int, Query(ge=1, le=10_000)]


@router.get("/runs/{reference}/metrics", response_model=list[MetricRecord])
def metrics(reference: str, service: TheService, who: Person, name: str = "") -> Response:
    """The metrics that a run sent, in order. The answer is streamed, as a run may send millions."""
    return StreamingResponse(_array(service.metrics.list(who, reference, name)), media_type="application/json")


@router.get("/runs/{reference}/metrics/summary", response_model=list[MetricSummary])
def metric_summaries(reference: str, service: TheService, who: Person) -> Response:
    """One line for each metric of a run."""
    return answer(service.metrics.summaries(who, reference))


@router.get("/runs/{reference}/metrics/page", response_model=MetricPage)
def metric_page(
    reference: str, service: TheService, who: Person, after: _Position = 0, limit: _Limit = 10_000
) -> Response:
    """The next values of all metrics of a run. For the next page send `next` as `after`."""
    return answer(service.metrics.page(who, reference, after, limit))


def _array(pages: Iterator[Sequence[MetricRecord]]) -> Iterator[bytes]:
    between = b"["
    for page in pages:
        if page:
            yield between + b",".join(json.dumps(to_wire(item)).encode() for item in page)
            between = b","
    yield b"]" if between == b"," else b"[]"
