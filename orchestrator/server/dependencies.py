"""Arguments that routes get from FastAPI (the service, the person who asks), and the form of their answers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection

from orchestrator.service import OWNER, Service, Who
from orchestrator.spec.run import to_wire

# Both are `async`: FastAPI calls other functions in a thread, which takes longer than they do.


async def _service(connection: HTTPConnection) -> Service:
    service: Service = connection.app.state.service
    return service


async def _who() -> Who:
    """The owner: only they can open the socket of the home."""
    return OWNER


TheService = Annotated[Service, Depends(_service)]
CastKey = Annotated[str, Query(max_length=64)]
"""Made by a client for each cast. A request that comes again, because its answer was lost, casts nothing new."""
Person = Annotated[Who, Depends(_who)]


def answer(value: Any, status: int = 200) -> JSONResponse:
    """A record, or a list of them, as JSON."""
    return JSONResponse(to_wire(value), status)
