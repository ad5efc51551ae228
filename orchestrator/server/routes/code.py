"""The code of runs: manifests and blobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from orchestrator.server.dependencies import Person, TheService, answer
from orchestrator.spec.run import check_digest

router = APIRouter()


@router.post("/trees")
async def put_tree(request: Request, service: TheService, who: Person) -> Response:
    """Send the manifest of a snapshot: JSON without line breaks. The answer lists the digests of the blobs that must be
    sent first; a line break and a pack of them may follow it (see `orchestrator.content.packs`)."""
    return answer(await asyncio.to_thread(service.code.put_tree, who, await request.body()))


@router.post("/blobs", status_code=204)
async def put_blobs(request: Request, service: TheService, who: Person) -> Response:
    """Send many small blobs; see `orchestrator.content.packs` for the format."""
    await asyncio.to_thread(service.code.put_blobs, who, await request.body())
    return Response(status_code=204)


@router.get("/trees/{tree}")
def tree(tree: str, service: TheService, who: Person) -> Response:
    """The manifest of a snapshot, as JSON."""
    return Response(service.code.tree(who, check_digest(tree)), media_type="application/json")


@router.get("/blobs/{digest}")
def blob(digest: str, service: TheService, who: Person) -> Response:
    """The content of a blob, for example the patch of a run's uncommitted changes."""
    return StreamingResponse(service.code.blob(who, digest), media_type="application/octet-stream")


@router.put("/blobs/{digest}", status_code=204)
async def put_blob(digest: str, request: Request, service: TheService, who: Person) -> Response:
    """Send a blob. The server checks its digest."""
    check_digest(digest)
    chunks = _Pull(request.stream(), asyncio.get_running_loop())
    await asyncio.to_thread(service.code.put_blob, who, digest, chunks)
    return Response(status_code=204)


class _Pull:
    """An iterator over an asynchronous stream, for a thread."""

    def __init__(self, stream: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._stream, self._loop = stream, loop

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()) is not None:
            yield chunk

    async def _next(self) -> bytes | None:
        return await anext(self._stream, None)
