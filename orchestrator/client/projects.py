"""Projects of a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.client.transport import Transport, quote
from orchestrator.errors import NotFound
from orchestrator.records import from_wire
from orchestrator.records.projects import ProjectRecord


class Projects:
    """Makes projects, looks at them, and puts runs into them. Names are found in whatever case they are written."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def create(self, name: str, description: str = "", runs: Sequence[str] = ()) -> ProjectRecord:
        """Make a project, of these runs."""
        body = {"name": name, "description": description, "runs": list(runs)}
        return from_wire(ProjectRecord, self._call("POST", "/projects", json=body))

    def list(self, *, archived: bool = False) -> list[ProjectRecord]:
        """All projects, oldest first; those that are archived, when asked for."""
        found = self._call("GET", "/projects", params={"archived": archived})
        return [from_wire(ProjectRecord, item) for item in found]

    def get(self, name: str) -> ProjectRecord:
        """One project."""
        return from_wire(ProjectRecord, self._call("GET", _path(name)))

    def edit(self, name: str, new_name: str | None = None, description: str | None = None) -> ProjectRecord:
        """Give a project another name or description; None leaves it as it is."""
        return self._post(name, "", {"new_name": new_name, "description": description})

    def archive(self, name: str) -> ProjectRecord:
        """Take a project from the list; its runs stay."""
        return self._post(name, "/archive")

    def unarchive(self, name: str) -> ProjectRecord:
        """Bring an archived project back."""
        return self._post(name, "/unarchive")

    def add_runs(self, name: str, runs: Sequence[str]) -> ProjectRecord:
        """Runs belong to this project from now on, and to no other."""
        return self._post(name, "/add-runs", {"runs": list(runs)})

    def remove_runs(self, name: str, runs: Sequence[str]) -> ProjectRecord:
        """Runs belong to no project from now on."""
        return self._post(name, "/remove-runs", {"runs": list(runs)})

    def _post(self, name: str, what: str, body: dict[str, Any] | None = None) -> ProjectRecord:
        return from_wire(ProjectRecord, self._call("POST", _path(name) + what, json=body or {}))


def _path(name: str) -> str:
    try:
        return f"/projects/{quote(name)}"
    except NotFound:
        raise NotFound(f"A project named {name!r} could not be found.", "See them with: spell project list") from None
