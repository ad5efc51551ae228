"""Outputs and uploads."""

from __future__ import annotations

import stat

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from orchestrator.data.resources import gathered, read_chunks
from orchestrator.records.files import FileRecord
from orchestrator.server.routes.parts import Verbs, answer

router = APIRouter()


@router.get("/resources/{resource:path}", response_model=list[FileRecord])
def resources(resource: str, verbs: Verbs) -> Response:
    """A folder's entries, or the file itself."""
    return answer(verbs.resources.list(resource))


@router.get("/files/{resource:path}")
def files(resource: str, verbs: Verbs) -> Response:
    """A file's bytes; a folder as a tar stream (media type application/x-tar)."""
    path = verbs.resources.path(verbs.resources.canonical(resource))
    if path.is_dir():
        size, parts = verbs.resources.archive(path)
        headers = {"Spell-Total-Bytes": str(size), "Spell-Kind": "folder"}
        return StreamingResponse(gathered(parts), headers=headers, media_type="application/x-tar")
    status = path.stat()
    length, kind = str(status.st_size), "executable" if status.st_mode & stat.S_IXUSR else "file"
    headers = {"Content-Length": length, "Spell-Total-Bytes": length, "Spell-Kind": kind}
    return StreamingResponse(read_chunks(path), headers=headers, media_type="application/octet-stream")
