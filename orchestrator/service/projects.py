"""Projects: runs that belong together."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.records.projects import ProjectRecord
from orchestrator.service.access import Access, Who
from orchestrator.spec.names import check_project
from orchestrator.store import Store


class Projects:
    """The projects of one home."""

    def __init__(self, store: Store, access: Access) -> None:
        self._store, self._access = store.projects, access

    def create(self, who: Who, name: str, description: str, runs: Sequence[str]) -> ProjectRecord:
        """Create a project with these runs; raises as `ProjectStore.create`."""
        return self._store.create(check_project(name), description, self._access.resolve_all(who, runs))

    def list(self, who: Who, *, archived: bool) -> list[ProjectRecord]:
        """All projects, oldest first; the archived ones if `archived`."""
        return self._store.list(archived=archived)

    def get(self, who: Who, name: str) -> ProjectRecord:
        """One project; raises as `ProjectStore.get`."""
        return self._store.get(self._access.resolve_project(who, name))

    def edit(self, who: Who, name: str, new_name: str | None, description: str | None) -> ProjectRecord:
        """Change the name or description of a project; None keeps it. Raises as `ProjectStore.edit`."""
        if new_name is not None:
            check_project(new_name)
        return self._store.edit(self._access.resolve_project(who, name), new_name, description)

    def archive(self, who: Who, name: str) -> ProjectRecord:
        """Hide a project from the list; raises as `ProjectStore.archive`."""
        return self._store.archive(self._access.resolve_project(who, name), archived=True)

    def unarchive(self, who: Who, name: str) -> ProjectRecord:
        """Bring an archived project back; raises as `ProjectStore.archive`."""
        return self._store.archive(self._access.resolve_project(who, name), archived=False)

    def add_runs(self, who: Who, name: str, runs: Sequence[str]) -> ProjectRecord:
        """Move runs to this project; raises as `ProjectStore.add_runs`."""
        return self._store.add_runs(self._access.resolve_project(who, name), self._access.resolve_all(who, runs))

    def remove_runs(self, who: Who, name: str, runs: Sequence[str]) -> ProjectRecord:
        """Remove runs from this project; raises as `ProjectStore.remove_runs`."""
        return self._store.remove_runs(self._access.resolve_project(who, name), self._access.resolve_all(who, runs))
