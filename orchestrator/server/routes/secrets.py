"""Secrets. No answer contains a value. A client sends a value as a body, which no log and no error shows."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestrator.errors import InvalidConfig
from orchestrator.records.secrets import SecretRecord
from orchestrator.server.dependencies import Person, TheService, answer
from orchestrator.service.secrets import MAX_BYTES

router = APIRouter()


@router.get("/secrets", response_model=list[SecretRecord])
def secrets(service: TheService, who: Person) -> Response:
    """All secrets by name, without their values."""
    return answer(service.secrets.list(who))


@router.put("/secrets/{name}", response_model=SecretRecord)
async def put(name: str, request: Request, service: TheService, who: Person) -> Response:
    """Set a secret, or replace its value. The body is the value."""
    value = b""
    async for chunk in request.stream():
        value += chunk
        if len(value) > MAX_BYTES:
            raise InvalidConfig(f"Secret {name!r} is longer than {MAX_BYTES >> 10} KiB.")
    return answer(await asyncio.to_thread(service.secrets.put, who, name, value))


@router.delete("/secrets/{name}", status_code=204)
def remove(name: str, service: TheService, who: Person) -> Response:
    """Remove a secret. Runs that already have its value keep it; queued runs that need it will fail."""
    service.secrets.remove(who, name)
    return Response(status_code=204)
