"""Resolves references: the only place where a name of a run, resource, search or workflow becomes a number or a path.

So it is also the only place that decides whether a person may see or change it. For now a home has one person, its
owner, who may do everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.data.resources import Resources
from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class Who:
    """A person who asks for something."""

    name: str


OWNER = Who("owner")
"""The only person for now: nobody else can open the server's socket."""


class Access:
    """Resolves the references of one home.

    Args:
        store: finds runs, searches and workflows.
        resources: finds files and folders.
    """

    def __init__(self, store: Store, resources: Resources) -> None:
        self._store, self._resources = store, resources

    def resolve(self, who: Who, reference: str) -> int:
        """The number of the run that a person means; raises as `Store.find`."""
        return self._store.find(reference)

    def resolve_all(self, who: Who, references: Iterable[str]) -> list[int]:
        """The numbers of several runs, in this order; raises as `resolve`."""
        return [self.resolve(who, reference) for reference in references]

    def resolve_resource(self, who: Who, resource: str) -> str:
        """The canonical path of a resource, its run by number; raises as `Resources.canonical`."""
        return self._resources.canonical(resource, lambda run: self.resolve(who, run))

    def path(self, who: Who, resource: str) -> Path:
        """The file or folder of a resource. Raises as `resolve_resource` and `Resources.path`."""
        return self._resources.path(self.resolve_resource(who, resource))

    def resolve_upload(self, who: Who, name: str) -> str:
        """The name of the upload that a person means, or is about to make."""
        return name

    def resolve_project(self, who: Who, name: str) -> str:
        """The name of the project that a person means."""
        return name

    def resolve_link(self, who: Who, alias: str) -> str:
        """The alias of the link that a person means, or is about to make."""
        return alias

    def resolve_secret(self, who: Who, name: str) -> str:
        """The name of the secret that a person means, or is about to set."""
        return name

    def mountable(self, who: Who, resource: str) -> str:
        """The canonical path of a resource that can be mounted now; raises as `Resources.mountable`."""
        return self._resources.mountable(resource, lambda run: self.resolve(who, run))

    def resolve_search(self, who: Who, reference: str) -> int:
        """The number of the search that a person means; raises as `SearchStore.find`."""
        return self._store.searches.find(reference)

    def resolve_workflow(self, who: Who, reference: str) -> int:
        """The number of the workflow that a person means; raises as `WorkflowStore.find`."""
        return self._store.workflows.find(reference)
