"""Exporting runs."""

from __future__ import annotations

import json

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from orchestrator.server.dependencies import Person, TheService

router = APIRouter()


@router.get("/runs/{reference}/export")
def export(
    reference: str, service: TheService, who: Person, *, inputs: bool = False, outputs: bool = False
) -> Response:
    """An export of a run, which runs without spell, as a tar stream (media type application/x-tar)."""
    found = service.export.download(who, reference, with_inputs=inputs, with_outputs=outputs)
    warnings = json.dumps([text[:300] for text in found.warnings[:20]])
    headers = {
        "Spell-Run": str(found.run),
        "Spell-Total-Bytes": str(found.size_bytes),
        "Spell-Warnings": warnings,
    }
    return StreamingResponse(found.chunks, headers=headers, media_type="application/x-tar")
