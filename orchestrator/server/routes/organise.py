"""Labels, the archive, projects and links."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import JSONResponse, Response

from orchestrator.records.links import LinkRecord
from orchestrator.records.projects import ProjectRecord
from orchestrator.records.run_summary import RunSummary
from orchestrator.server.routes.parts import answer
from orchestrator.service.organise import Organising

router = APIRouter()


def _organising(request: Request) -> Organising:
    organising: Organising = request.app.state.organising
    return organising


Order = Annotated[Organising, Depends(_organising)]
Words = Annotated[list[str] | None, Body(embed=True)]
Word = Annotated[str | None, Body(embed=True)]
Runs = Annotated[list[str], Body(embed=True)]


@router.post("/runs/{reference}/labels", response_model=RunSummary)
def label(reference: str, order: Order, add: Words = None, remove: Words = None) -> Response:
    """Give a run labels, and take others from it."""
    return answer(order.label(reference, add or (), remove or ()))


@router.post("/runs/{reference}/archive", response_model=RunSummary)
def archive(reference: str, order: Order) -> Response:
    """Take a run that has ended out of lists and mounts; nothing of it is removed."""
    return answer(order.archive(reference))


@router.post("/runs/{reference}/unarchive", response_model=RunSummary)
def unarchive(reference: str, order: Order) -> Response:
    """Bring an archived run back."""
    return answer(order.unarchive(reference))


@router.post("/projects", response_model=ProjectRecord, status_code=201)
def create(
    order: Order,
    name: Annotated[str, Body(embed=True)],
    description: Annotated[str, Body(embed=True)] = "",
    runs: Words = None,
) -> Response:
    """Make a project."""
    return answer(order.create_project(name, description, runs or ()), 201)


@router.get("/projects", response_model=list[ProjectRecord])
def projects(order: Order, *, archived: bool = False) -> Response:
    """All projects, oldest first; those that are archived, when asked for."""
    return answer(order.store.projects.list(archived=archived))


@router.get("/projects/{name}", response_model=ProjectRecord)
def project(name: str, order: Order) -> Response:
    """One project."""
    return answer(order.store.projects.get(name))


@router.post("/projects/{name}", response_model=ProjectRecord)
def edit(name: str, order: Order, new_name: Word = None, description: Word = None) -> Response:
    """Give a project another name or description; what is null stays."""
    return answer(order.edit_project(name, new_name, description))


@router.post("/projects/{name}/archive", response_model=ProjectRecord)
def archive_project(name: str, order: Order) -> Response:
    """Take a project from the list; its runs stay."""
    return answer(order.store.projects.archive(name, archived=True))


@router.post("/projects/{name}/unarchive", response_model=ProjectRecord)
def unarchive_project(name: str, order: Order) -> Response:
    """Bring an archived project back."""
    return answer(order.store.projects.archive(name, archived=False))


@router.post("/projects/{name}/add-runs", response_model=ProjectRecord)
def add_runs(name: str, order: Order, runs: Runs) -> Response:
    """Runs belong to this project from now on, and to no other."""
    return answer(order.add_runs(name, runs))


@router.post("/projects/{name}/remove-runs", response_model=ProjectRecord)
def remove_runs(name: str, order: Order, runs: Runs) -> Response:
    """Runs belong to no project from now on."""
    return answer(order.remove_runs(name, runs))


@router.get("/links", response_model=list[LinkRecord])
def links(order: Order) -> Response:
    """All links, by alias; those to archived runs are left out."""
    return answer(order.store.links.list())


@router.get("/links/{alias}", response_model=LinkRecord)
def link(alias: str, order: Order) -> Response:
    """One link."""
    return answer(order.store.links.get(alias))


@router.put("/links/{alias}", response_model=LinkRecord)
def put_link(
    alias: str,
    order: Order,
    resource: Annotated[str, Body(embed=True)],
    *,
    replace: Annotated[bool, Body(embed=True)] = False,
) -> Response:
    """Give a resource a name of its own."""
    return answer(order.link(alias, resource, replace=replace))


@router.delete("/links/{alias}")
def unlink(alias: str, order: Order) -> Response:
    """Remove a link; what it leads to stays."""
    order.store.links.remove(alias)
    return JSONResponse({"removed": alias})
