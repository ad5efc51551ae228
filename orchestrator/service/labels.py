"""Labels of runs."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.records.run_summary import RunSummary
from orchestrator.service.access import Access, Who
from orchestrator.spec.names import check_label
from orchestrator.store import Store


class Labels:
    """Labels of the runs of one home."""

    def __init__(self, store: Store, access: Access) -> None:
        self._store, self._access = store, access

    def change(self, who: Who, reference: str, add: Sequence[str], remove: Sequence[str]) -> RunSummary:
        """Add labels to a run, and remove others. Raises as `LabelStore.label`."""
        for label in add:
            check_label(label)
        number = self._access.resolve(who, reference)
        self._store.labels.label(number, add, remove)
        return self._store.summary(number)
