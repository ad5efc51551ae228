"""Comparing two runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from orchestrator.records.compare import DiffRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()


@router.get("/runs/{reference}/diff/{other}", response_model=DiffRecord)
def diff(
    reference: str,
    other: str,
    service: TheService,
    who: Person,
    section: Annotated[list[str] | None, Query()] = None,
) -> Response:
    """The differences between two runs; of these sections only, if any are named."""
    return answer(service.compare.diff(who, reference, other, section or ()))
