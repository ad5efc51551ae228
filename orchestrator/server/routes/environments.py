"""Environments: what a run would get."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.responses import Response

from orchestrator.records.environments import EnvironmentRecord
from orchestrator.server.dependencies import Person, TheService, answer
from orchestrator.spec.validate import read_spec

router = APIRouter()


@router.post("/environment", response_model=EnvironmentRecord)
def look(service: TheService, who: Person, spec: Annotated[dict[str, Any], Body()]) -> Response:
    """The environment that a run of this spec would get, and whether it is built. 409 with code `snapshot_missing`: send the code first."""
    return answer(service.environments.look(who, read_spec(spec)))
