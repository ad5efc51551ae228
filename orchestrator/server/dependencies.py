"""What routes are given: the service, and who asks; and how they answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection

from orchestrator.service import OWNER, Service, Who
from orchestrator.spec.run import to_wire

# Both are `async`, as FastAPI calls what is not in a thread: that takes longer than they do.


async def _service(connection: HTTPConnection) -> Service:
    service: Service = connection.app.state.service
    return service


async def _who() -> Who:
    """Nobody but the owner of the home can reach its socket."""
    return OWNER


TheService = Annotated[Service, Depends(_service)]
Person = Annotated[Who, Depends(_who)]


def answer(value: Any, status: int = 200) -> JSONResponse:
    """A record, or a list of them, as JSON."""
    return JSONResponse(to_wire(value), status)
