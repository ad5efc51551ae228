"""Runs: cast, listed, inspected, stopped."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from fastapi.responses import JSONResponse, Response

from orchestrator.records.casts import CastRecord
from orchestrator.records.events import EventRecord
from orchestrator.records.files import ArtifactRecord
from orchestrator.records.plans import PlanRecord
from orchestrator.records.run_summary import RunSummary
from orchestrator.records.runs import RunRecord
from orchestrator.server.dependencies import CastKey, Person, TheService, answer
from orchestrator.spec.filters import MAX_SKIP, Filter, parse_sort
from orchestrator.spec.validate import read_spec
from orchestrator.states import StopRequest

router = APIRouter()


@router.post("/runs", response_model=CastRecord, status_code=201)
def cast(
    service: TheService,
    who: Person,
    spec: Annotated[dict[str, Any], Body()],
    key: CastKey = "",
    *,
    reuse: bool = False,
) -> Response:
    """Cast a run, or reuse an identical one. 409 with code `snapshot_missing`: send the code first."""
    found = service.runs.cast(who, read_spec(spec), reuse=reuse, key=key)
    return answer(found, 200 if found.reused else 201)


@router.post("/runs/plan", response_model=PlanRecord)
def plan(
    service: TheService,
    who: Person,
    spec: Annotated[dict[str, Any], Body()],
    blobs: Annotated[list[str], Body()],
    manifest: Annotated[str, Body()] = "",
    *,
    reuse: bool = False,
) -> Response:
    """What casting a run would do now; nothing is cast. `blobs` are the digests of its code, and `manifest` its files, which
    need not have been sent."""
    return answer(service.runs.plan(who, read_spec(spec), blobs, manifest, reuse=reuse))


@router.get("/runs", response_model=list[RunSummary])
def runs(
    service: TheService,
    who: Person,
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

    Page back with `before`, or with `skip` if they are sorted by another key.
    """
    wanted = Filter(
        state or (), label or (), machine_type or (), name, project, since, metric or (), text or (), archived
    )
    return answer(service.runs.list(who, wanted, parse_sort(sort), limit=limit, before=before, skip=skip))


@router.get("/runs/{reference}", response_model=RunRecord)
def run(reference: str, service: TheService, who: Person) -> Response:
    """The record of a run, by number, name, `latest` or `latest~1`."""
    return answer(service.runs.get(who, reference))


@router.post("/runs/{reference}/rerun", response_model=CastRecord, status_code=201)
def rerun(
    reference: str,
    service: TheService,
    who: Person,
    changes: Annotated[dict[str, Any], Body()],
    key: CastKey = "",
) -> Response:
    """Cast a run again; `changes` are fields of a spec."""
    return answer(service.runs.rerun(who, reference, changes, key=key), 201)


@router.post("/runs/{reference}/resume", response_model=CastRecord, status_code=201)
def resume(
    reference: str,
    service: TheService,
    who: Person,
    changes: Annotated[dict[str, Any], Body()],
    key: CastKey = "",
) -> Response:
    """Cast a run again that begins with its checkpoints; `changes` are fields of a spec. 409 as for a cast."""
    return answer(service.runs.resume(who, reference, changes, key=key), 201)


@router.post("/runs/{reference}/stop")
def stop(reference: str, service: TheService, who: Person) -> Response:
    """Stop a run: its outputs are kept. Returns its new state."""
    return JSONResponse({"state": service.runs.request_stop(who, reference, StopRequest.STOP)})


@router.post("/runs/{reference}/kill")
def kill(reference: str, service: TheService, who: Person) -> Response:
    """Kill a run: it ends at once, and its outputs are lost. Returns its new state."""
    return JSONResponse({"state": service.runs.request_stop(who, reference, StopRequest.KILL)})


@router.get("/runs/{reference}/events", response_model=list[EventRecord])
def events(reference: str, service: TheService, who: Person) -> Response:
    """The events of a run, in order."""
    return answer(service.runs.events(who, reference))


@router.get("/runs/{reference}/artifacts", response_model=list[ArtifactRecord])
def artifacts(reference: str, service: TheService, who: Person) -> Response:
    """The outputs of a run, and the files that were not kept."""
    return answer(service.runs.artifacts(who, reference))
