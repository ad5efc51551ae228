"""The server, its machine, and what takes room on it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import Response, StreamingResponse

from orchestrator.records.gc import CollectionRecord
from orchestrator.records.machines import CheckRecord, MachineRecord, ServerRecord
from orchestrator.records.runs import StatRecord
from orchestrator.server.routes.parts import Verbs, answer
from orchestrator.spec.validate import read_spec

router = APIRouter()


@router.get("/server", response_model=ServerRecord)
def server(verbs: Verbs) -> Response:
    """Which server answers."""
    return answer(verbs.server())


@router.post("/server/stop", status_code=202)
def stop_server(request: Request) -> Response:
    """End the server. Active runs go on without it, and are found again by the next one."""
    request.app.state.stop()
    return Response(status_code=202)


@router.get("/machine-types", response_model=list[MachineRecord])
def machine_types(verbs: Verbs) -> Response:
    """All machine types, and how many more runs of each would start at once."""
    return answer(verbs.machines())


@router.get("/doctor", response_model=list[CheckRecord])
def examine(verbs: Verbs) -> Response:
    """What works on the server's machine, and what does not."""
    return answer(verbs.examine())


@router.post("/gc", response_model=CollectionRecord)
def collect(
    verbs: Verbs,
    older_than_s: Annotated[float, Query(ge=0, lt=1e10)],
    dry_run: bool = False,  # noqa: FBT001, FBT002  of the query
    keep_bytes: Annotated[int | None, Query(ge=0, lt=1 << 63)] = None,
) -> Response:
    """Remove what earlier runs have left, and nobody uses and nobody used for so long."""
    return answer(verbs.collect(older_than_s, keep_bytes, dry_run=dry_run))


@router.get("/stats", response_model=list[StatRecord])
def stats(verbs: Verbs, run: Annotated[list[str] | None, Query()] = None) -> Response:
    """What these runs use now; all that run, when none is named."""
    return answer(verbs.stats(run or ()))


@router.post("/images")
def bake(
    verbs: Verbs, spec: Annotated[dict[str, Any], Body()], tag: Annotated[str, Body()], push: Annotated[bool, Body()]
) -> Response:
    """Bake the environment of a spec into an image, and push it when asked. JSON lines, see `baking.Baker.bake`."""
    return StreamingResponse(verbs.baker.bake(read_spec(spec), tag, push=push), media_type="application/jsonl")
