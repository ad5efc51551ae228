"""Baked images."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.responses import Response, StreamingResponse

from orchestrator.server.dependencies import Person, TheService
from orchestrator.spec.validate import read_spec

router = APIRouter()


@router.post("/images")
def bake(
    service: TheService,
    who: Person,
    spec: Annotated[dict[str, Any], Body()],
    tag: Annotated[str, Body()],
    push: Annotated[bool, Body()],
) -> Response:
    """Bake the environment of a spec into an image, and push it if `push`. JSON lines, see `service.images.Images.bake`."""
    return StreamingResponse(service.images.bake(who, read_spec(spec), tag, push=push), media_type="application/jsonl")
