"""Casting searches, looking at them, ending them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.responses import Response

from orchestrator.controllers.searches import Searches
from orchestrator.records.searches import SearchCastRecord, SearchRecord, SearchSummary
from orchestrator.server.routes.parts import answer
from orchestrator.spec.validate import read_search
from orchestrator.states import StopRequest

router = APIRouter()


def _searches(request: Request) -> Searches:
    searches: Searches = request.app.state.searches
    return searches


Hyper = Annotated[Searches, Depends(_searches)]


@router.post("/searches", response_model=SearchCastRecord, status_code=201)
def cast(hyper: Hyper, spec: Annotated[dict[str, Any], Body()]) -> Response:
    """Cast a search. 409 with code `snapshot_missing`: send the code first."""
    return answer(hyper.cast(read_search(spec)), 201)


@router.get("/searches", response_model=list[SearchSummary])
def searches(
    hyper: Hyper,
    limit: Annotated[int, Query(ge=1)] = 50,
    before: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
) -> Response:
    """The newest `limit` searches, newest last; page back with `before`."""
    return answer(hyper.store.summaries(limit=limit, before=before))


@router.get("/searches/{reference}", response_model=SearchRecord)
def search(reference: str, hyper: Hyper) -> Response:
    """All about one search, by number or `latest`."""
    return answer(hyper.store.record(hyper.store.find(reference)))


@router.post("/searches/{reference}/stop", response_model=SearchRecord)
def stop(reference: str, hyper: Hyper) -> Response:
    """End the commands of its trials, whose outputs are kept; no further trial starts."""
    return answer(hyper.request_stop(reference, StopRequest.STOP))


@router.post("/searches/{reference}/kill", response_model=SearchRecord)
def kill(reference: str, hyper: Hyper) -> Response:
    """End the commands of its trials at once; their outputs are lost. No further trial starts."""
    return answer(hyper.request_stop(reference, StopRequest.KILL))


@router.post("/searches/{reference}/resume", response_model=SearchRecord)
def resume(reference: str, hyper: Hyper) -> Response:
    """Go on with a search that has ended: trials that failed, or were never cast, are cast."""
    return answer(hyper.resume(reference))
