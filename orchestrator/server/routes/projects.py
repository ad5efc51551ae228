"""Projects."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from fastapi.responses import Response

from orchestrator.records.projects import ProjectRecord
from orchestrator.server.dependencies import Person, TheService, answer

router = APIRouter()
_Text = Annotated[str | None, Body(embed=True)]
_Runs = Annotated[list[str], Body(embed=True)]


@router.post("/projects", response_model=ProjectRecord, status_code=201)
def create(
    service: TheService,
    who: Person,
    name: Annotated[str, Body(embed=True)],
    description: Annotated[str, Body(embed=True)] = "",
    runs: Annotated[list[str] | None, Body(embed=True)] = None,
) -> Response:
    """Create a project."""
    return answer(service.projects.create(who, name, description, runs or ()), 201)


@router.get("/projects", response_model=list[ProjectRecord])
def projects(service: TheService, who: Person, *, archived: bool = False) -> Response:
    """All projects, oldest first; the archived ones if `archived`."""
    return answer(service.projects.list(who, archived=archived))


@router.get("/projects/{name}", response_model=ProjectRecord)
def project(name: str, service: TheService, who: Person) -> Response:
    """One project."""
    return answer(service.projects.get(who, name))


@router.post("/projects/{name}", response_model=ProjectRecord)
def edit(name: str, service: TheService, who: Person, new_name: _Text = None, description: _Text = None) -> Response:
    """Change the name or description of a project; null keeps it."""
    return answer(service.projects.edit(who, name, new_name, description))


@router.post("/projects/{name}/archive", response_model=ProjectRecord)
def archive_project(name: str, service: TheService, who: Person) -> Response:
    """Hide a project from the list. Its runs stay."""
    return answer(service.projects.archive(who, name))


@router.post("/projects/{name}/unarchive", response_model=ProjectRecord)
def unarchive_project(name: str, service: TheService, who: Person) -> Response:
    """Bring an archived project back."""
    return answer(service.projects.unarchive(who, name))


@router.post("/projects/{name}/add-runs", response_model=ProjectRecord)
def add_runs(name: str, service: TheService, who: Person, runs: _Runs) -> Response:
    """Move runs to this project."""
    return answer(service.projects.add_runs(who, name, runs))


@router.post("/projects/{name}/remove-runs", response_model=ProjectRecord)
def remove_runs(name: str, service: TheService, who: Person, runs: _Runs) -> Response:
    """Remove runs from this project."""
    return answer(service.projects.remove_runs(who, name, runs))
