"""Logs of runs: read, with times, or followed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse

from orchestrator.errors import InvalidConfig
from orchestrator.records.logs import LogTime
from orchestrator.records.position import Position
from orchestrator.server.dependencies import Person, TheService, answer
from orchestrator.server.follow import Follower, Hub

router = APIRouter()


@router.get("/runs/{reference}/log")
def log(
    reference: str,
    service: TheService,
    who: Person,
    lines: Annotated[int | None, Query(ge=0)] = None,
    most_bytes: Annotated[int, Query(ge=1)] = 1 << 62,
) -> Response:
    """The output of a run, byte for byte; the last `lines` lines if given, and at most `most_bytes` of them."""
    found = service.logs.tail(who, reference, lines, most_bytes)
    headers = {"Spell-Log-End": str(found.end)}
    return StreamingResponse(found.chunks, headers=headers, media_type="application/octet-stream")


@router.get("/runs/{reference}/log/times", response_model=list[LogTime])
def times(
    reference: str,
    service: TheService,
    who: Person,
    after: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
) -> Response:
    """The moments when the log grew, beyond offset `after`. For the next page send the last offset of the answer."""
    return answer(service.logs.times(who, reference, after, limit))


@router.get("/runs/{reference}/follow")
async def follow(
    reference: str,
    request: Request,
    service: TheService,
    who: Person,
    after: str = "",
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """Events and log as server-sent events, from a position on; see `server/follow.py` for the format."""
    try:
        position = Position.parse(last_event_id or after)
    except ValueError:
        raise InvalidConfig(f"{last_event_id or after!r} is not a position in a log.") from None
    hub: Hub = request.app.state.hub
    follower = Follower(hub, service.logs.follow(who, reference), position)
    return StreamingResponse(follower.stream(), media_type="text/event-stream")
