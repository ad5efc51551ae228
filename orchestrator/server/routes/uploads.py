"""Uploads: a client announces files, sends the missing ones in packs and chunks, and publishes the upload."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from orchestrator.records.uploads import UploadNeeds, UploadRecord, UploadSession
from orchestrator.server.dependencies import Person, TheService, answer
from orchestrator.spec.run import check_digest

router = APIRouter()


@router.get("/uploads", response_model=list[UploadRecord])
def uploads(service: TheService, who: Person) -> Response:
    """All uploads, by name."""
    return answer(service.uploads.list(who))


@router.post("/uploads/{name}", response_model=UploadSession)
def open_upload(
    name: str,
    size_bytes: Annotated[int, Query(ge=0)],
    service: TheService,
    who: Person,
    *,
    tree: str = "",
    replace: bool = False,
) -> Response:
    """Begin an upload, or resume one."""
    return answer(service.uploads.open(who, name, size_bytes, tree, replace=replace))


@router.post("/uploads/{name}/entries", response_model=UploadNeeds)
async def announce(name: str, session: str, request: Request, service: TheService, who: Person) -> Response:
    """Announce some files of an upload by a manifest. The answer says which of them to send."""
    return answer(await asyncio.to_thread(service.uploads.announce, who, name, session, await request.body()))


@router.post("/uploads/{name}/pack", status_code=204)
async def add_pack(name: str, session: str, request: Request, service: TheService, who: Person) -> Response:
    """Send small files; see `orchestrator.content.packs` for the format."""
    await asyncio.to_thread(service.uploads.add_pack, who, name, session, await request.body())
    return Response(status_code=204)


@router.post("/uploads/{name}/chunk", status_code=204)
async def add_chunk(
    name: str,
    session: str,
    digest: str,
    offset: Annotated[int, Query(ge=0)],
    request: Request,
    service: TheService,
    who: Person,
) -> Response:
    """Append bytes to a big file."""
    await asyncio.to_thread(
        service.uploads.add_chunk, who, name, session, check_digest(digest), offset, await request.body()
    )
    return Response(status_code=204)


@router.post("/uploads/{name}/publish", response_model=UploadRecord, status_code=201)
def publish(name: str, session: str, tree: str, service: TheService, who: Person, *, replace: bool = False) -> Response:
    """Publish an upload that is complete."""
    return answer(service.uploads.publish(who, name, session, tree, replace=replace), 201)


@router.delete("/uploads/{name}", status_code=204)
def remove(name: str, service: TheService, who: Person) -> Response:
    """Remove an upload, and any incomplete upload of its name."""
    service.uploads.remove(who, name)
    return Response(status_code=204)
