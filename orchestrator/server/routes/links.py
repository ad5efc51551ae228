"""Links: other names of resources."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse, Response

from orchestrator.records.links import LinkRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()


@router.get("/links", response_model=list[LinkRecord])
def links(service: TheService, who: Person) -> Response:
    """All links by alias, without those to archived runs."""
    return answer(service.links.list(who))


@router.get("/links/{alias}", response_model=LinkRecord)
def link(alias: str, service: TheService, who: Person) -> Response:
    """One link."""
    return answer(service.links.get(who, alias))


@router.put("/links/{alias}", response_model=LinkRecord)
def put_link(
    alias: str,
    service: TheService,
    who: Person,
    resource: Annotated[str, Body(embed=True)],
    *,
    replace: Annotated[bool, Body(embed=True)] = False,
) -> Response:
    """Give a resource an alias."""
    return answer(service.links.put(who, alias, resource, replace=replace))


@router.delete("/links/{alias}")
def unlink(alias: str, service: TheService, who: Person) -> Response:
    """Remove a link. The resource stays."""
    service.links.remove(who, alias)
    return JSONResponse({"removed": alias})
