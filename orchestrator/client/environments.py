"""Environments of runs."""

from __future__ import annotations

from orchestrator.client.transport import Transport
from orchestrator.records import from_wire
from orchestrator.records.environments import EnvironmentRecord
from orchestrator.spec.run import RunSpec, to_wire


class Environments:
    """Looks up environments."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def look(self, spec: RunSpec) -> EnvironmentRecord:
        """Return the environment that a run of this spec would get, and whether it is built. Nothing is built."""
        return from_wire(EnvironmentRecord, self._call("POST", "/environment", json=to_wire(spec), may_repeat=True))
