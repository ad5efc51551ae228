"""Checks of the server's machine."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from orchestrator.records.machines import CheckRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()


@router.get("/doctor", response_model=list[CheckRecord])
def examine(service: TheService, who: Person) -> Response:
    """The results of all checks of the server's machine."""
    return answer(service.doctor.examine(who))
