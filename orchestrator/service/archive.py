"""The archive: hides runs that have ended from lists and mounts, and brings them back."""

from __future__ import annotations

from orchestrator.records.run_summary import RunSummary
from orchestrator.service.access import Access, Who
from orchestrator.store import Store


class Archive:
    """The archive of one home."""

    def __init__(self, store: Store, access: Access) -> None:
        self._store, self._access = store, access

    def add(self, who: Who, reference: str) -> RunSummary:
        """Hide a run from lists and mounts; removes nothing of it. Raises as `ArchiveStore.add`."""
        number = self._access.resolve(who, reference)
        with self._store.way_out():
            self._store.archive.add(number)
        return self._store.summary(number)

    def remove(self, who: Who, reference: str) -> RunSummary:
        """Bring an archived run back; raises as `ArchiveStore.remove`."""
        number = self._access.resolve(who, reference)
        self._store.archive.remove(number)
        return self._store.summary(number)
