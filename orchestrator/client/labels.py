"""Labels of runs."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.client.transport import Transport, quote
from orchestrator.records import from_wire
from orchestrator.records.run_summary import RunSummary
from orchestrator.spec.type_checks import several


class Labels:
    """Adds and removes labels of runs. `client.runs.list` finds runs by them."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def add(self, reference: int | str, labels: Sequence[str]) -> RunSummary:
        """Add labels to a run."""
        return self._edit(reference, {"add": several("labels", labels)})

    def remove(self, reference: int | str, labels: Sequence[str]) -> RunSummary:
        """Remove labels from a run."""
        return self._edit(reference, {"remove": several("labels", labels)})

    def _edit(self, reference: int | str, body: dict[str, list[str]]) -> RunSummary:
        return from_wire(
            RunSummary,
            self._call("POST", f"/runs/{quote(reference)}/labels", json=body, may_repeat="remove" not in body),
        )
