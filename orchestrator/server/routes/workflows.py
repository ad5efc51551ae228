"""Casting workflows, looking at them, ending them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.responses import Response

from orchestrator.controllers.workflows import Workflows
from orchestrator.records.workflows import WorkflowCastRecord, WorkflowRecord, WorkflowSummary
from orchestrator.server.routes.parts import answer
from orchestrator.spec.validate import read_workflow
from orchestrator.states import StopRequest

router = APIRouter()


def _workflows(request: Request) -> Workflows:
    workflows: Workflows = request.app.state.workflows
    return workflows


Flows = Annotated[Workflows, Depends(_workflows)]


@router.post("/workflows", response_model=WorkflowCastRecord, status_code=201)
def cast(flows: Flows, spec: Annotated[dict[str, Any], Body()]) -> Response:
    """Cast a workflow. 409 with code `snapshot_missing`: send the code first."""
    return answer(flows.cast(read_workflow(spec)), 201)


@router.get("/workflows", response_model=list[WorkflowSummary])
def workflows(
    flows: Flows,
    limit: Annotated[int, Query(ge=1)] = 50,
    before: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
) -> Response:
    """The newest `limit` workflows, newest last; page back with `before`."""
    return answer(flows.store.summaries(limit=limit, before=before))


@router.get("/workflows/{reference}", response_model=WorkflowRecord)
def workflow(reference: str, flows: Flows) -> Response:
    """All about one workflow, by number, name or `latest`."""
    return answer(flows.store.record(flows.store.find(reference)))


@router.post("/workflows/{reference}/stop", response_model=WorkflowRecord)
def stop(reference: str, flows: Flows) -> Response:
    """End the commands of its steps, whose outputs are kept; steps that wait never start."""
    return answer(flows.request_stop(reference, StopRequest.STOP))


@router.post("/workflows/{reference}/kill", response_model=WorkflowRecord)
def kill(reference: str, flows: Flows) -> Response:
    """End the commands of its steps at once; their outputs are lost. Steps that wait never start."""
    return answer(flows.request_stop(reference, StopRequest.KILL))
