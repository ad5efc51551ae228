"""The HTTP API. Each route calls one verb; what it answers is a record of `orchestrator.records`."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from orchestrator import manifest as manifests
from orchestrator.errors import InvalidConfig, NotFound
from orchestrator.records import (
    ArtifactRecord,
    CastRecord,
    CheckRecord,
    CollectionRecord,
    EventRecord,
    FileRecord,
    MachineRecord,
    MetricRecord,
    RunRecord,
    RunSummary,
    SampleRecord,
    ServerRecord,
    StatRecord,
)
from orchestrator.resources import read_chunks, tail
from orchestrator.server.follow import Follower, Hub, Position
from orchestrator.service import Service
from orchestrator.spec import check_digest, to_wire
from orchestrator.states import Wish
from orchestrator.wire import read_spec

router = APIRouter()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


Verbs = Annotated[Service, Depends(_service)]


def _json(value: Any) -> JSONResponse:
    return JSONResponse(to_wire(value))


@router.get("/server", response_model=ServerRecord)
def server(verbs: Verbs) -> Response:
    """Which server answers."""
    return _json(verbs.server())


@router.post("/server/stop", status_code=202)
def stop_server(request: Request) -> Response:
    """End the server. Active runs go on without it, and are found again by the next one."""
    request.app.state.stop()
    return Response(status_code=202)


@router.get("/machine-types", response_model=list[MachineRecord])
def machine_types(verbs: Verbs) -> Response:
    """All machine types, and how many more runs of each would start at once."""
    return _json(verbs.machines())


@router.get("/doctor", response_model=list[CheckRecord])
def examine(verbs: Verbs) -> Response:
    """What works on the server's machine, and what does not."""
    return _json(verbs.examine())


@router.post("/gc", response_model=CollectionRecord)
def collect(
    verbs: Verbs,
    older_than_s: Annotated[float, Query(ge=0, lt=1e10)],
    dry_run: bool = False,  # noqa: FBT001, FBT002  of the query
) -> Response:
    """Remove what earlier runs have left, and nobody uses and nobody used for so long."""
    return _json(verbs.collect(older_than_s, dry_run=dry_run))


@router.get("/stats", response_model=list[StatRecord])
def stats(verbs: Verbs, run: Annotated[list[str] | None, Query()] = None) -> Response:
    """What these runs use now; all that run, when none is named."""
    return _json(verbs.stats(run or ()))


@router.post("/images")
def bake(
    verbs: Verbs, spec: Annotated[dict[str, Any], Body()], tag: Annotated[str, Body()], push: Annotated[bool, Body()]
) -> Response:
    """Bake the environment of a spec into an image, and push it when asked. JSON lines, see `baking.Baker.bake`."""
    return StreamingResponse(verbs.baker.bake(read_spec(spec), tag, push=push), media_type="application/jsonl")


@router.post("/trees")
async def put_tree(request: Request, verbs: Verbs) -> Response:
    """Send the manifest of a snapshot; the answer lists the digests of the blobs that must be sent first."""
    body = await request.body()
    return _json(await asyncio.to_thread(lambda: verbs.shop.blobs.put_tree(manifests.from_json(body))))


@router.get("/blobs/{digest}")
def blob(digest: str, verbs: Verbs) -> Response:
    """The content of a blob: the patch of a run's uncommitted changes, say."""
    if verbs.shop.blobs.missing([check_digest(digest)]):
        raise NotFound(f"There is no blob {digest[:12]}.")
    return StreamingResponse(read_chunks(verbs.home.blob(digest)), media_type="application/octet-stream")


@router.put("/blobs/{digest}", status_code=204)
async def put_blob(digest: str, request: Request, verbs: Verbs) -> Response:
    """Send a blob; it is checked against its digest."""
    check_digest(digest)
    chunks = _Pull(request.stream(), asyncio.get_running_loop())
    await asyncio.to_thread(verbs.shop.blobs.put, digest, chunks)
    return Response(status_code=204)


class _Pull:
    """An asynchronous stream, read from a thread."""

    def __init__(self, stream: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._stream, self._loop = stream, loop

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()) is not None:
            yield chunk

    async def _next(self) -> bytes | None:
        return await anext(self._stream, None)


@router.post("/runs", response_model=CastRecord, status_code=201)
def cast(verbs: Verbs, spec: Annotated[dict[str, Any], Body()]) -> Response:
    """Cast a run. 409 with code `snapshot_missing`: send the code first."""
    return JSONResponse(to_wire(verbs.cast(read_spec(spec))), status_code=201)


@router.get("/runs", response_model=list[RunSummary])
def runs(
    verbs: Verbs,
    state: Annotated[list[str] | None, Query()] = None,
    label: Annotated[list[str] | None, Query()] = None,
    name: str = "",
    limit: Annotated[int, Query(ge=1)] = 50,
    before: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
) -> Response:
    """Runs that match all filters, the newest `limit` of them, newest last; page back with `before`."""
    found = verbs.store.summaries(states=state or (), label=label or (), name=name, limit=limit, before=before)
    return _json(found)


@router.get("/runs/{reference}", response_model=RunRecord)
def run(reference: str, verbs: Verbs) -> Response:
    """All about one run, by number, name, `latest` or `latest~1`."""
    return _json(verbs.record(reference))


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
    return _json(verbs.store.events(verbs.store.find(reference)))


@router.get("/runs/{reference}/artifacts", response_model=list[ArtifactRecord])
def artifacts(reference: str, verbs: Verbs) -> Response:
    """The manifest of a run's outputs, and what was not kept."""
    return _json(verbs.store.artifacts(verbs.store.find(reference)))


@router.get("/runs/{reference}/metrics", response_model=list[MetricRecord])
def metrics(reference: str, verbs: Verbs, name: str = "") -> Response:
    """The metrics that a run sent, in order."""
    return _json(verbs.metrics(reference, name))


@router.get("/runs/{reference}/samples", response_model=list[SampleRecord])
def samples(reference: str, verbs: Verbs) -> Response:
    """What a run used of the machine, in order of time."""
    return _json(verbs.store.samples(verbs.store.find(reference)))


@router.get("/runs/{reference}/log")
def log(reference: str, verbs: Verbs, lines: Annotated[int | None, Query(ge=0)] = None) -> Response:
    """The run's own output, byte for byte; only its last `lines` lines when given."""
    path = verbs.home.log(verbs.store.find(reference))
    end = path.stat().st_size if path.exists() else 0
    headers = {"Spell-Log-End": str(end)}
    return StreamingResponse(tail(path, lines, end), headers=headers, media_type="application/octet-stream")


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


@router.get("/resources/{resource:path}", response_model=list[FileRecord])
def resources(resource: str, verbs: Verbs) -> Response:
    """A folder's entries, or the file itself."""
    return _json(verbs.resources.list(resource))


@router.get("/files/{resource:path}")
def files(resource: str, verbs: Verbs) -> Response:
    """A file's bytes; a folder as a tar stream (media type application/x-tar)."""
    path = verbs.resources.path(verbs.resources.canonical(resource))
    if path.is_dir():
        size = sum(item.lstat().st_size for item in path.rglob("*") if item.is_file())
        headers = {"Spell-Total-Bytes": str(size), "Spell-Kind": "folder"}
        return StreamingResponse(verbs.resources.archive(path), headers=headers, media_type="application/x-tar")
    status = path.stat()
    length, kind = str(status.st_size), "executable" if status.st_mode & stat.S_IXUSR else "file"
    headers = {"Content-Length": length, "Spell-Total-Bytes": length, "Spell-Kind": kind}
    return StreamingResponse(read_chunks(path), headers=headers, media_type="application/octet-stream")
