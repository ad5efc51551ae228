"""Garbage collection: making room on the server's disk."""

from __future__ import annotations

from orchestrator.client.transport import Transport
from orchestrator.records import from_wire
from orchestrator.records.gc import GcRecord, RemovedRecord

_LIMIT_S = 3600.0


class Gc:
    """Removes what nobody uses."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def remove(self, older_than_s: float, *, dry_run: bool = False, keep_bytes: int | None = None) -> GcRecord:
        """Remove what nobody uses, and nobody used for so long.

        Args:
            dry_run: remove nothing, and say what would be removed.
            keep_bytes: beyond so many bytes of a kind, what is younger is removed, too.
        """
        query: dict[str, float] = {"older_than_s": older_than_s, "dry_run": dry_run}
        query |= {} if keep_bytes is None else {"keep_bytes": keep_bytes}
        found = self._call("POST", "/gc", params=query, read_limit_s=_LIMIT_S)
        return GcRecord([from_wire(RemovedRecord, item) for item in found["removed"]], found["warnings"])
