"""Searches over parameters: cast, listed, inspected, stopped, resumed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from fastapi.responses import Response

from orchestrator.records.searches import SearchCastRecord, SearchRecord, SearchSummary
from orchestrator.server.dependencies import CastKey, Person, TheService, answer
from orchestrator.spec.validate import read_search
from orchestrator.states import StopRequest

router = APIRouter()


@router.post("/searches", response_model=SearchCastRecord, status_code=201)
def cast(service: TheService, who: Person, spec: Annotated[dict[str, Any], Body()], key: CastKey = "") -> Response:
    """Cast a search. 409 with code `snapshot_missing`: send the code first."""
    return answer(service.searches.cast(who, read_search(spec), key=key), 201)


@router.get("/searches", response_model=list[SearchSummary])
def searches(
    service: TheService,
    who: Person,
    limit: Annotated[int, Query(ge=1)] = 50,
    before: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
) -> Response:
    """The newest `limit` searches, newest last; page back with `before`."""
    return answer(service.searches.list(who, limit=limit, before=before))


@router.get("/searches/{reference}", response_model=SearchRecord)
def search(reference: str, service: TheService, who: Person) -> Response:
    """The record of a search, by number or `latest`."""
    return answer(service.searches.get(who, reference))


@router.post("/searches/{reference}/stop", response_model=SearchRecord)
def stop(reference: str, service: TheService, who: Person) -> Response:
    """Stop a search: running trials are stopped, and no further trial starts. Outputs are kept."""
    return answer(service.searches.request_stop(who, reference, StopRequest.STOP))


@router.post("/searches/{reference}/kill", response_model=SearchRecord)
def kill(reference: str, service: TheService, who: Person) -> Response:
    """Kill a search: running trials are killed, and no further trial starts. Their outputs are lost."""
    return answer(service.searches.request_stop(who, reference, StopRequest.KILL))


@router.post("/searches/{reference}/resume", response_model=SearchRecord)
def resume(reference: str, service: TheService, who: Person) -> Response:
    """Resume a search that has ended: cast trials that failed or were never cast."""
    return answer(service.searches.resume(who, reference))
