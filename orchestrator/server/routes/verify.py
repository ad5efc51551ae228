"""Verifying the outputs of runs."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from orchestrator.server.dependencies import Person, TheService

router = APIRouter()


@router.post("/runs/{reference}/verify")
def verify(reference: str, service: TheService, who: Person) -> Response:
    """Compare the outputs of a run with its manifest. JSON lines, see `service.verify.Verify.outputs`."""
    return StreamingResponse(service.verify.outputs(who, reference), media_type="application/jsonl")
