"""Workflows."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.client.transport import Transport, quote
from orchestrator.errors import NotFound, SnapshotMissing
from orchestrator.records import from_wire
from orchestrator.records.workflows import WorkflowCastRecord, WorkflowRecord, WorkflowSummary, workflow_from_wire
from orchestrator.spec.run import to_wire
from orchestrator.spec.workflow import WorkflowSpec


class Workflows:
    """Casts, lists and ends workflows. A workflow is named by its number, its name, or `latest`."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self._call = transport, transport.call

    def cast(self, spec: WorkflowSpec, send_code: Callable[[], object] | None = None) -> WorkflowCastRecord:
        """Cast a workflow.

        Args:
            send_code: called if the server lacks the code of a step; then the workflow is cast again.

        Raises:
            SpellError: of the class that the server raised.
        """
        body = to_wire(spec)
        try:
            return from_wire(WorkflowCastRecord, self._transport.cast("/workflows", body))
        except SnapshotMissing:
            if send_code is None:
                raise
        send_code()
        return from_wire(WorkflowCastRecord, self._transport.cast("/workflows", body))

    def list(self, *, limit: int = 50, before: int = 0) -> list[WorkflowSummary]:
        """Return the newest `limit` workflows with smaller numbers than `before` (0 for no bound), newest last."""
        found = self._call("GET", "/workflows", params={"limit": limit, "before": before})
        return [from_wire(WorkflowSummary, item) for item in found]

    def get(self, reference: int | str) -> WorkflowRecord:
        """Return the whole record of one workflow."""
        return workflow_from_wire(self._call("GET", _path(reference)))

    def stop(self, reference: int | str) -> WorkflowRecord:
        """Stop the runs of its steps and keep their outputs. Waiting steps never start."""
        return workflow_from_wire(self._transport.change(_path(reference), "stop", wish="stop"))

    def kill(self, reference: int | str) -> WorkflowRecord:
        """End the runs of its steps at once; their outputs are lost. Waiting steps never start."""
        return workflow_from_wire(self._transport.change(_path(reference), "kill", wish="kill"))


def _path(reference: int | str) -> str:
    try:
        return f"/workflows/{quote(reference)}"
    except NotFound:
        raise NotFound(f"There is no workflow {reference!r}.", "See them with: spell workflow list") from None
