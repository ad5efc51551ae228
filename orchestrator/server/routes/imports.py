"""Imports of runs from other trackers."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from orchestrator.records.casts import CastRecord
from orchestrator.records.imports import ImportRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()


@router.get("/imports", response_model=list[ImportRecord])
def imports(service: TheService, who: Person) -> Response:
    """Where all imported runs came from."""
    return answer(service.imports.list(who))


@router.post("/imports", response_model=CastRecord, status_code=201)
async def add(size_bytes: Annotated[int, Query(ge=0)], request: Request, service: TheService, who: Person) -> Response:
    """Import one run: a tar archive as `orchestrator.data.imports` says. 200 when it was imported before."""
    with service.imports.arriving(who, size_bytes) as arriving:
        with arriving.archive.open("xb") as file:
            async for chunk in request.stream():
                file.write(chunk)
        found = await asyncio.to_thread(service.imports.add, who, arriving)
    return answer(found, 200 if found.reused else 201)
