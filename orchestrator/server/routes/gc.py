"""Garbage collection."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response

from orchestrator.records.gc import GcRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()


@router.post("/gc", response_model=GcRecord)
def remove(
    service: TheService,
    who: Person,
    older_than_s: Annotated[float, Query(ge=0, lt=1e10)],
    dry_run: bool = False,  # noqa: FBT001, FBT002  of the query
    keep_bytes: Annotated[int | None, Query(ge=0, lt=1 << 63)] = None,
    only: Literal["", "caches"] = "",
) -> Response:
    """Remove what earlier runs left, if no run needs it and it was not used for so long."""
    return answer(service.gc.remove(who, older_than_s, keep_bytes, dry_run=dry_run, only=only))
