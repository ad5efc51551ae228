"""Labels of runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from fastapi.responses import Response

from orchestrator.records.run_summary import RunSummary
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()
_Labels = Annotated[list[str] | None, Body(embed=True)]


@router.post("/runs/{reference}/labels", response_model=RunSummary)
def label(reference: str, service: TheService, who: Person, add: _Labels = None, remove: _Labels = None) -> Response:
    """Add labels to a run, and remove others."""
    return answer(service.labels.change(who, reference, add or (), remove or ()))
