"""Projects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.client.transport import Transport, quote
from orchestrator.errors import NotFound
from orchestrator.records import from_wire
from orchestrator.records.projects import ProjectRecord
from orchestrator.spec.type_checks import several


class Projects:
    """Makes and changes projects. Their names are found regardless of case."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def create(self, name: str, description: str = "", runs: Sequence[int | str] = ()) -> ProjectRecord:
        """Make a project with these runs."""
        body = {"name": name, "description": description, "runs": _references(runs)}
        return from_wire(ProjectRecord, self._call("POST", "/projects", json=body))

    def list(self, *, archived: bool = False) -> list[ProjectRecord]:
        """Return all projects that are (or are not) archived, oldest first."""
        found = self._call("GET", "/projects", params={"archived": archived})
        return [from_wire(ProjectRecord, item) for item in found]

    def get(self, name: str) -> ProjectRecord:
        """Return one project."""
        return from_wire(ProjectRecord, self._call("GET", _path(name)))

    def edit(self, name: str, new_name: str | None = None, description: str | None = None) -> ProjectRecord:
        """Change the name or description of a project; None keeps the present one."""
        return self._post(name, "", {"new_name": new_name, "description": description})

    def archive(self, name: str) -> ProjectRecord:
        """Archive a project. Its runs do not change."""
        return self._post(name, "/archive")

    def unarchive(self, name: str) -> ProjectRecord:
        """Unarchive a project."""
        return self._post(name, "/unarchive")

    def add_runs(self, name: str, runs: Sequence[int | str]) -> ProjectRecord:
        """Move runs into this project, out of any other."""
        return self._post(name, "/add-runs", {"runs": _references(runs)})

    def remove_runs(self, name: str, runs: Sequence[int | str]) -> ProjectRecord:
        """Remove runs from this project."""
        return self._post(name, "/remove-runs", {"runs": _references(runs)})

    def _post(self, name: str, verb: str, body: dict[str, Any] | None = None) -> ProjectRecord:
        return from_wire(ProjectRecord, self._call("POST", _path(name) + verb, json=body or {}))


def _references(runs: Sequence[int | str]) -> list[str]:
    return [str(run) for run in several("runs", runs)]


def _path(name: str) -> str:
    try:
        return f"/projects/{quote(name)}"
    except NotFound:
        raise NotFound(f"A project named {name!r} could not be found.", "See them with: spell project list") from None
