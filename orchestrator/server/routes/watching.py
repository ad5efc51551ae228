"""Watching runs: their metrics page by page, and when their logs grew."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from orchestrator.records.logs import LogTime
from orchestrator.records.metrics import MetricPage, MetricSummary
from orchestrator.server.routes.parts import Verbs, answer
from orchestrator.telemetry import log_times

router = APIRouter()
_Position = Annotated[int, Query(ge=0, lt=1 << 63)]
_Limit = Annotated[int, Query(ge=1, le=10_000)]


@router.get("/runs/{reference}/metrics/summary", response_model=list[MetricSummary])
def metric_summaries(reference: str, verbs: Verbs) -> Response:
    """One line for each metric of a run, up to this moment."""
    return answer(verbs.metric_summaries(reference))


@router.get("/runs/{reference}/metrics/page", response_model=MetricPage)
def metric_page(reference: str, verbs: Verbs, after: _Position = 0, limit: _Limit = 10_000) -> Response:
    """The next values that a run has sent, of all names; go on with `after` = `next`."""
    return answer(verbs.metric_page(reference, after, limit))


@router.get("/runs/{reference}/log/times", response_model=list[LogTime])
def times(reference: str, verbs: Verbs, after: _Position = 0, limit: _Limit = 10_000) -> Response:
    """When the log grew beyond offset `after`; go on with the last offset that was answered."""
    return answer(log_times.read(verbs.home.log_times(verbs.store.find(reference)), after, limit))
