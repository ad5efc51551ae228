"""Workflows: cast, listed, inspected, stopped."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from fastapi.responses import Response

from orchestrator.records.workflows import WorkflowCastRecord, WorkflowRecord, WorkflowSummary
from orchestrator.server.dependencies import CastKey, Person, TheService, answer
from orchestrator.spec.validate import read_workflow
from orchestrator.states import StopRequest

router = APIRouter()


@router.post("/workflows", response_model=WorkflowCastRecord, status_code=201)
def cast(service: TheService, who: Person, spec: Annotated[dict[str, Any], Body()], key: CastKey = "") -> Response:
    """Cast a workflow. 409 with code `snapshot_missing`: send the code first."""
    return answer(service.workflows.cast(who, read_workflow(spec), key=key), 201)


@router.get("/workflows", response_model=list[WorkflowSummary])
def workflows(
    service: TheService,
    who: Person,
    limit: Annotated[int, Query(ge=1)] = 50,
    before: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
) -> Response:
    """The newest `limit` workflows, newest last; page back with `before`."""
    return answer(service.workflows.list(who, limit=limit, before=before))


@router.get("/workflows/{reference}", response_model=WorkflowRecord)
def workflow(reference: str, service: TheService, who: Person) -> Response:
    """The record of a workflow, by number, name or `latest`."""
    return answer(service.workflows.get(who, reference))


@router.post("/workflows/{reference}/stop", response_model=WorkflowRecord)
def stop(reference: str, service: TheService, who: Person) -> Response:
    """Stop a workflow: running steps are stopped, and no further step starts. Outputs are kept."""
    return answer(service.workflows.request_stop(who, reference, StopRequest.STOP))


@router.post("/workflows/{reference}/kill", response_model=WorkflowRecord)
def kill(reference: str, service: TheService, who: Person) -> Response:
    """Kill a workflow: running steps are killed, and no further step starts. Their outputs are lost."""
    return answer(service.workflows.request_stop(who, reference, StopRequest.KILL))
