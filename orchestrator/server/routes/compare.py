"""Comparing runs, tracing what they were made of, verifying what they left."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from orchestrator.records.compare import DiffRecord, LineageRecord
from orchestrator.server.routes.parts import Verbs, answer
from orchestrator.service.compare import Compare
from orchestrator.service.export import Exporter
from orchestrator.service.lineage import Lineage
from orchestrator.service.verify import Verify

router = APIRouter()


@router.get("/runs/{reference}/diff/{other}", response_model=DiffRecord)
def diff(reference: str, other: str, verbs: Verbs, section: Annotated[list[str] | None, Query()] = None) -> Response:
    """What differs between two runs; only these sections of it, when any are named."""
    return answer(Compare(verbs.context).diff(reference, other, section or ()))


@router.get("/runs/{reference}/lineage", response_model=LineageRecord)
def lineage(reference: str, verbs: Verbs, *, up: bool = True, down: bool = True) -> Response:
    """What a run was made of, and what was made of it."""
    return answer(Lineage(verbs.context).of(reference, up=up, down=down))


@router.post("/runs/{reference}/verify")
def verify(reference: str, verbs: Verbs) -> Response:
    """Compare the outputs of a run with its manifest. JSON lines, see `verify.Verify.begin`."""
    return StreamingResponse(Verify(verbs.context).begin(reference), media_type="application/jsonl")


@router.get("/runs/{reference}/export")
def export(reference: str, verbs: Verbs, *, inputs: bool = False, outputs: bool = False) -> Response:
    """A run with all it takes to run it without spell, as a tar stream (media type application/x-tar)."""
    found = Exporter(verbs.context).export(reference, with_inputs=inputs, with_outputs=outputs)
    warnings = json.dumps([text[:300] for text in found.warnings[:20]])
    headers = {
        "Spell-Run": str(found.run),
        "Spell-Total-Bytes": str(found.size_bytes),
        "Spell-Warnings": warnings,
    }
    return StreamingResponse(found.chunks, headers=headers, media_type="application/x-tar")
