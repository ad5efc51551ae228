"""The archive of runs."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from orchestrator.records.run_summary import RunSummary
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()


@router.post("/runs/{reference}/archive", response_model=RunSummary)
def archive(reference: str, service: TheService, who: Person) -> Response:
    """Hide a run that has ended from lists and mounts. Removes nothing of it."""
    return answer(service.archive.add(who, reference))


@router.post("/runs/{reference}/unarchive", response_model=RunSummary)
def unarchive(reference: str, service: TheService, who: Person) -> Response:
    """Bring an archived run back."""
    return answer(service.archive.remove(who, reference))
