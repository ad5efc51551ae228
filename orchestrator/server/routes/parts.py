"""What every module of routes needs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse

from orchestrator.service.runs import Service
from orchestrator.spec.run import to_wire


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Verbs = Annotated[Service, Depends(_service)]


def answer(value: Any, status: int = 200) -> JSONResponse:
    """A record, or a list of them, as JSON."""
    return JSONResponse(to_wire(value), status)
