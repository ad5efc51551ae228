"""Casting runs, looking at them, ending them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from orchestrator.errors import InvalidConfig
from orchestrator.records.casting import CastRecord
from orchestrator.records.files import ArtifactRecord
from orchestrator.records.position import Position
from orchestrator.records.runs import MetricRecord, RunRecord, SampleRecord
from orchestrator.records.summaries import EventRecord, RunSummary
from orchestrator.server.follow import Follower, Hub
from orchestrator.server.routes.parts import Verbs, answer
from orchestrator.spec.filters import MAX_SKIP, Filter, parse_sort
from orchestrator.spec.run import to_wire
from orchestrator.spec.validate import read_spec
from orchestrator.states import Wish
from orchestrator.telemetry.logs import tail

router = APIRouter()


def _array(pages: Iterator[list[MetricRecord]]) -> Iterator[bytes]:
    between = b"["
    for page in pages:
        if page:
            yield between + b",".join(json.dumps(to_wire(item)).encode() for item in page)
            between = b","
    yield b"]" if between == b"," else b"[]"


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


@router.post("/runs", response_model=CastRecord, status_code=201)
def cast(verbs: Verbs, spec: Annotated[dict[str, Any], Body()], *, reuse: bool = False) -> Response:
    """Cast a run, or take an identical one. 409 with code `snapshot_missing`: send the code first."""
    found = verbs.cast(read_spec(spec), reuse=reuse)
    return answer(found, 200 if found.reused else 201)


@router.get("/runs", response_model=list[RunSummary])
def runs(
    verbs: Verbs,
    state: Annotated[list[str] | None, Query()] = None,
    label: Annotated[list[str] | None, Query()] = None,
    machine_type: Annotated[list[str] | None, Query()] = None,
    metric: Annotated[list[str] | None, Query()] = None,
    text: Annotated[list[str] | None, Query()] = None,
    name: str = "",
    project: str = "",
    since: float = 0.0,
    sort: str = "",
    limit: Annotated[int, Query(ge=1)] = 50,
    before: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
    skip: Annotated[int, Query(ge=0, le=MAX_SKIP)] = 0,
    *,
    archived: bool = False,
) -> Response:
    """Runs that match all filters (see `orchestrator.spec.filters`), the newest `limit` of them, newest last.

    Page back with `before`; where they are sorted otherwise, with `skip`.
    """
    wanted = Filter(
        state or (), label or (), machine_type or (), name, project, since, metric or (), text or (), archived
    )
    return answer(verbs.store.summaries(wanted, parse_sort(sort), limit=limit, before=before, skip=skip))


@router.get("/runs/{reference}", response_model=RunRecord)
def run(reference: str, verbs: Verbs) -> Response:
    """All about one run, by number, name, `latest` or `latest~1`."""
    return answer(verbs.record(reference))


@router.post("/runs/{reference}/rerun", response_model=CastRecord, status_code=201)
def rerun(reference: str, verbs: Verbs, changes: Annotated[dict[str, Any], Body()]) -> Response:
    """Cast a run again; `changes` are fields of a spec."""
    return answer(verbs.rerun(reference, changes), 201)


@router.post("/runs/{reference}/stop")
def stop(reference: str, verbs: Verbs) -> Response:
    """End the command; its outputs are kept. Answers the state of the run after that."""
    return JSONResponse({"state": verbs.wish(reference, Wish.STOP)})


@router.post("/runs/{reference}/kill")
def kill(reference: str, verbs: Verbs) -> Response:
    """End the command at once; its outputs are lost. Answers the state of the run after that."""
    return JSONResponse({"state": verbs.wish(reference, Wish.KILL)})


@router.get("/runs/{reference}/events", response_model=list[EventRecord])
def events(reference: str, verbs: Verbs) -> Response:
    """What happened to a run, in order."""
    return answer(verbs.store.events(verbs.store.find(reference)))


@router.get("/runs/{reference}/artifacts", response_model=list[ArtifactRecord])
def artifacts(reference: str, verbs: Verbs) -> Response:
    """The manifest of a run's outputs, and what was not kept."""
    return answer(verbs.store.artifacts(verbs.store.find(reference)))


@router.get("/runs/{reference}/metrics", response_model=list[MetricRecord])
def metrics(reference: str, verbs: Verbs, name: str = "") -> Response:
    """The metrics that a run sent, in order; as they are read, for there may be millions."""
    return StreamingResponse(_array(verbs.metrics(reference, name)), media_type="application/json")


@router.get("/runs/{reference}/samples", response_model=list[SampleRecord])
def samples(reference: str, verbs: Verbs) -> Response:
    """What a run used of the machine, in order of time."""
    return answer(verbs.store.samples(verbs.store.find(reference)))


@router.get("/runs/{reference}/log")
def log(
    reference: str,
    verbs: Verbs,
    lines: Annotated[int | None, Query(ge=0)] = None,
    most_bytes: Annotated[int, Query(ge=1)] = 1 << 62,
) -> Response:
    """The run's own output, byte for byte; only its last `lines` lines when given, and `most_bytes` of those."""
    path = verbs.home.log(verbs.store.find(reference))
    end = path.stat().st_size if path.exists() else 0
    headers = {"Spell-Log-End": str(end)}
    return StreamingResponse(tail(path, lines, end, most_bytes), headers=headers, media_type="application/octet-stream")


@router.get("/runs/{reference}/follow")
async def follow(
    reference: str,
    request: Request,
    verbs: Verbs,
    after: str = "",
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """Events and log as server-sent events, from a position on; see `server/follow.py` for the format."""
    try:
        position = Position.parse(last_event_id or after)
    except ValueError:
        raise InvalidConfig(f"{last_event_id or after!r} is no position in a log.") from None
    follower = Follower(_hub(request), verbs.store, verbs.home, verbs.store.find(reference), position)
    return StreamingResponse(follower.stream(), media_type="text/event-stream")
