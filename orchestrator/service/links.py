"""Links: other names of resources."""

from __future__ import annotations

from orchestrator.data.resources import Resources
from orchestrator.errors import Conflict
from orchestrator.records.links import LinkRecord
from orchestrator.service.access import Access, Who
from orchestrator.spec.names import check_alias
from orchestrator.store import Store


class Links:
    """The links of one home."""

    def __init__(self, store: Store, access: Access, resources: Resources) -> None:
        self._store, self._access, self._resources = store.links, access, resources

    def list(self, who: Who) -> list[LinkRecord]:
        """All links by alias, without those to archived runs."""
        return self._store.list()

    def get(self, who: Who, alias: str) -> LinkRecord:
        """One link; raises as `LinkStore.get`."""
        return self._store.get(self._access.resolve_link(who, alias))

    def put(self, who: Who, alias: str, resource: str, *, replace: bool) -> LinkRecord:
        """Give an existing resource an alias.

        Raises:
            InvalidConfig: `alias` is not allowed.
            NotFound: the resource does not exist.
            Conflict: its run is archived, or the alias leads to another resource.
        """
        check_alias(alias)
        canonical = self._access.resolve_resource(who, resource)
        if "/" not in canonical:
            raise Conflict(f"{resource!r} as a whole cannot have an alias.", "Link what is in it: runs/NUMBER/…")
        self._resources.refuse_archived(canonical)
        self._resources.path(canonical)
        return self._store.put(self._access.resolve_link(who, alias), canonical, replace=replace)

    def remove(self, who: Who, alias: str) -> None:
        """Remove a link; raises as `LinkStore.remove`."""
        self._store.remove(self._access.resolve_link(who, alias))
