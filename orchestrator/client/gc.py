"""Garbage collection: removal of unused data on the server."""

from __future__ import annotations

from orchestrator.client.transport import Transport
from orchestrator.records import from_wire
from orchestrator.records.gc import GcRecord, RemovedRecord

_LIMIT_S = 3600.0


class Gc:
    """Removes unused data."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def remove(
        self, older_than_s: float, *, dry_run: bool = False, keep_bytes: int | None = None, only: str = ""
    ) -> GcRecord:
        """Remove data that no kept run needs.

        Args:
            older_than_s: minimum time since the last use, in seconds.
            dry_run: only return what would be removed.
            keep_bytes: remove younger data too, until each kind takes no more bytes than this.
            only: `caches` to leave all else; "" for everything.
        """
        query: dict[str, float | str] = {"older_than_s": older_than_s, "dry_run": dry_run}
        query |= {"only": only} if only else {}
        query |= {} if keep_bytes is None else {"keep_bytes": keep_bytes}
        found = self._call("POST", "/gc", params=query, read_limit_s=_LIMIT_S, may_repeat=True)
        removed = [from_wire(RemovedRecord, item) for item in found["removed"]]
        return GcRecord(removed, found["warnings"], found["caches_bytes"])
