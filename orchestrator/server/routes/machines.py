"""Machine types."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from orchestrator.records.machines import MachineRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()


@router.get("/machine-types", response_model=list[MachineRecord])
def machine_types(service: TheService, who: Person) -> Response:
    """All machine types, and the number of runs of each that could start now."""
    return answer(service.machines.list(who))
