"""The verbs that keep order: labels, projects, links, and the archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.data.resources import Resources
from orchestrator.errors import Conflict
from orchestrator.records.links import LinkRecord
from orchestrator.records.projects import ProjectRecord
from orchestrator.records.run_summary import RunSummary
from orchestrator.spec.names import check_alias, check_label, check_project
from orchestrator.store import Store


class Organising:
    """What a person can do with runs that are there, without casting any."""

    def __init__(self, store: Store, resources: Resources) -> None:
        self.store, self._resources = store, resources

    def label(self, reference: str, add: Sequence[str], remove: Sequence[str]) -> RunSummary:
        """Give a run labels, and take others from it. Raises as `LabelStore.label`."""
        for label in add:
            check_label(label)
        return self._marked(reference, lambda number: self.store.labels.label(number, add, remove))

    def archive(self, reference: str) -> RunSummary:
        """Take a run out of lists and mounts; raises as `ArchiveStore.add`."""
        return self._marked(reference, self.store.archive.add)

    def unarchive(self, reference: str) -> RunSummary:
        """Bring an archived run back; raises as `ArchiveStore.remove`."""
        return self._marked(reference, self.store.archive.remove)

    def _marked(self, reference: str, mark: Callable[[int], None]) -> RunSummary:
        number = self.store.find(reference)
        mark(number)
        return self.store.summary(number)

    def create_project(self, name: str, description: str, runs: Sequence[str]) -> ProjectRecord:
        """Make a project, of these runs; raises as `ProjectStore.create`."""
        return self.store.projects.create(check_project(name), description, self._numbers(runs))

    def edit_project(self, name: str, new_name: str | None, description: str | None) -> ProjectRecord:
        """Give a project another name or description; raises as `ProjectStore.edit`."""
        if new_name is not None:
            check_project(new_name)
        return self.store.projects.edit(name, new_name, description)

    def add_runs(self, name: str, runs: Sequence[str]) -> ProjectRecord:
        """Runs belong to this project from now on; raises as `ProjectStore.add_runs`."""
        return self.store.projects.add_runs(name, self._numbers(runs))

    def remove_runs(self, name: str, runs: Sequence[str]) -> ProjectRecord:
        """Runs belong to no project from now on; raises as `ProjectStore.remove_runs`."""
        return self.store.projects.remove_runs(name, self._numbers(runs))

    def _numbers(self, references: Sequence[str]) -> list[int]:
        return [self.store.find(reference) for reference in references]

    def link(self, alias: str, resource: str, *, replace: bool) -> LinkRecord:
        """Give a resource, which must be there, a name of its own.

        Raises:
            InvalidConfig: what is no alias.
            NotFound, Conflict: no such resource; it is archived; the alias leads elsewhere.
        """
        check_alias(alias)
        canonical = self._resources.canonical(resource)
        if "/" not in canonical:
            raise Conflict(f"{resource!r} as a whole cannot have an alias.", "Link what is in it: runs/NUMBER/…")
        self._resources.refuse_archived(canonical)
        self._resources.path(canonical)
        return self.store.links.put(alias, canonical, replace=replace)
