"""Machine types."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from orchestrator.records.machines import MachineRecord
from orchestrator.server.dependencies import TheService, answer

router = APIRouter()


@router.get("/machine-types", response_model=list[MachineRecord])
def machine_types(service: TheService) -> Response:
    """All machine types, and the number of runs of each that could start now."""
    return answer(service.machines.list())
