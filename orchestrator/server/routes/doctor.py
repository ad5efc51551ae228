"""What works on the server's machine."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from orchestrator.records.machines import CheckRecord
from orchestrator.server.dependencies import TheService, answer

router = APIRouter()


@router.get("/doctor", response_model=list[CheckRecord])
def examine(service: TheService) -> Response:
    """What works on the server's machine, and what does not."""
    return answer(service.doctor.examine())
