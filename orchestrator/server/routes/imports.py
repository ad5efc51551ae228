"""Imports of runs from other trackers."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import contextmanager_in_threadpool
from fastapi.responses import Response

from orchestrator.records.casts import CastRecord
from orchestrator.records.imports import ImportRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()
_AT_ONCE_BYTES = 1 << 20


@router.get("/imports", response_model=list[ImportRecord])
def imports(service: TheService, who: Person) -> Response:
    """Where all imported runs came from."""
    return answer(service.imports.list(who))


@router.post("/imports", response_model=CastRecord, status_code=201)
async def add(size_bytes: Annotated[int, Query(ge=0)], request: Request, service: TheService, who: Person) -> Response:
    """Import one run: a tar archive of this size, as `orchestrator.data.imports` says. 200 when it was imported before."""
    async with contextmanager_in_threadpool(service.imports.arriving(who, size_bytes)) as arriving:
        waiting = bytearray()
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= _AT_ONCE_BYTES:
                await asyncio.to_thread(arriving.receive, bytes(waiting))
                waiting.clear()
        await asyncio.to_thread(arriving.receive, bytes(waiting))
        found = await asyncio.to_thread(service.imports.add, who, arriving)
    return answer(found, 200 if found.reused else 201)
