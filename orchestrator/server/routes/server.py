"""The server itself."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from orchestrator.records.machines import ServerRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()


@router.get("/server", response_model=ServerRecord)
def server(service: TheService, who: Person) -> Response:
    """The server that answers."""
    return answer(service.server.get(who))


@router.post("/server/stop", status_code=202)
def stop_server(request: Request) -> Response:
    """End the server. Active runs go on, and the next server takes them over."""
    request.app.state.stop()
    return Response(status_code=202)
