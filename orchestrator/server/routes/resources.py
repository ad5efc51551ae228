"""Resources: outputs and uploads, listed and downloaded."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from orchestrator.records.files import FileRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()


@router.get("/resources/{resource:path}", response_model=list[FileRecord])
def resources(resource: str, service: TheService, who: Person) -> Response:
    """A folder's entries, or the file itself."""
    return answer(service.resources.list(who, resource))


@router.get("/files/{resource:path}")
def files(resource: str, service: TheService, who: Person, sparse: bool = False) -> Response:  # noqa: FBT001, FBT002
    """A file's bytes; a folder as a tar stream (media type application/x-tar), and with `sparse` a sparse file, too.

    `Spell-Final: false` marks files of a run that has not ended.
    """
    found = service.resources.download(who, resource, sparse=sparse)
    headers = {"Spell-Total-Bytes": str(found.size_bytes), "Spell-Kind": found.kind}
    headers |= {} if found.is_final else {"Spell-Final": "false"}
    if found.is_tar:
        return StreamingResponse(found.chunks, headers=headers, media_type="application/x-tar")
    headers["Content-Length"] = str(found.size_bytes)
    return StreamingResponse(found.chunks, headers=headers, media_type="application/octet-stream")
