"""Environments of runs."""

from __future__ import annotations

import functools

from orchestrator.client.code import CapturedCode, Code
from orchestrator.client.transport import Transport
from orchestrator.errors import SnapshotMissing
from orchestrator.records import from_wire
from orchestrator.records.environments import EnvironmentRecord
from orchestrator.spec.run import RunSpec, to_wire


class Environments:
    """Looks up environments."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def look(self, spec: RunSpec, code: CapturedCode | None = None) -> EnvironmentRecord:
        """Return the environment that a run of this spec would get, and whether it is built. Nothing is built.

        Args:
            code: of the run. It is sent if it has projects to install, and the server lacks it.
        """
        ask = functools.partial(self._transport.call, "POST", "/environment", json=to_wire(spec), may_repeat=True)
        try:
            return from_wire(EnvironmentRecord, ask())
        except SnapshotMissing:
            if code is None:
                raise
        Code(self._transport).send(code)
        return from_wire(EnvironmentRecord, ask())
