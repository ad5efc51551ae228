"""Logs of runs: read, searched, with times, or followed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse

from orchestrator.errors import InvalidConfig
from orchestrator.records.logs import MAX_AROUND, MAX_LAST, LogLine, LogTime
from orchestrator.records.position import Position
from orchestrator.server.dependencies import Person, TheService, answer
from orchestrator.server.follow import Follower, Hub
from orchestrator.spec.run import to_wire

router = APIRouter()
_CHUNK_CHARS, _CHUNK_S = 64 << 10, 0.05


@router.get("/runs/{reference}/log")
def log(
    reference: str,
    service: TheService,
    who: Person,
    lines: Annotated[int | None, Query(ge=0)] = None,
    most_bytes: Annotated[int, Query(ge=1)] = 1 << 62,
    since: Annotated[float | None, Query(ge=0, lt=1e12)] = None,
) -> Response:
    """The output of a run, byte for byte; the last `lines` lines if given, and at most `most_bytes` of them; only what it
    wrote since a time, in seconds since the epoch."""
    found = service.logs.tail(who, reference, lines, most_bytes, since)
    headers = {"Spell-Log-Start": str(found.start), "Spell-Log-End": str(found.end)}
    return StreamingResponse(found.chunks, headers=headers, media_type="application/octet-stream")


@router.get("/runs/{reference}/log/search", response_model=list[LogLine])
def search(
    reference: str,
    service: TheService,
    who: Person,
    text: str,
    last: Annotated[int | None, Query(ge=0, le=MAX_LAST)] = None,
    around: Annotated[int, Query(ge=0, le=MAX_AROUND)] = 0,
    since: Annotated[float | None, Query(ge=0, lt=1e12)] = None,
    *,
    times: bool = False,
) -> Response:
    """The lines of a log with a text, or with a match of `/EXPRESSION/`: one JSON object a line, as they are found. Only the
    `last` of them if given, with `around` further lines before and after each, and with `times` if they are asked for."""
    found = service.logs.search(who, reference, text, last=last, around=around, since=since, times=times)
    headers = {"Spell-Log-End": str(found.end)}
    return StreamingResponse(_packed(found.lines), headers=headers, media_type="application/x-ndjson")


def _packed(lines: Iterable[LogLine]) -> Iterator[bytes]:
    """Yield many lines at once, as each chunk costs a change of threads."""
    held: list[str] = []
    size, sent_at = 0, time.monotonic()
    for line in lines:
        held.append(json.dumps(to_wire(line)))
        size += len(held[-1])
        if size > _CHUNK_CHARS or time.monotonic() - sent_at > _CHUNK_S:
            yield ("\n".join(held) + "\n").encode()
            held, size, sent_at = [], 0, time.monotonic()
    yield "".join(f"{line}\n" for line in held).encode()


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
