"""The lineage of runs."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from orchestrator.records.compare import LineageRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()


@router.get("/runs/{reference}/lineage", response_model=LineageRecord)
def lineage(reference: str, service: TheService, who: Person, *, up: bool = True, down: bool = True) -> Response:
    """The resources that a run mounted, and the runs that mounted its outputs."""
    return answer(service.lineage.get(who, reference, up=up, down=down))
