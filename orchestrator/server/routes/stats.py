"""The usage of runs, now and in the past."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from orchestrator.records.runs import SampleRecord, StatRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()


@router.get("/stats", response_model=list[StatRecord])
def stats(service: TheService, who: Person, run: Annotated[list[str] | None, Query()] = None) -> Response:
    """The usage of these runs now; of all running ones if none is named."""
    return answer(service.stats.list(who, run or ()))


@router.get("/runs/{reference}/samples", response_model=list[SampleRecord])
def samples(reference: str, service: TheService, who: Person) -> Response:
    """The samples of a run, in order of time."""
    return answer(service.stats.samples(who, reference))
