"""Links: other names of resources."""

from __future__ import annotations

from orchestrator.client.transport import Transport, quote
from orchestrator.errors import NotFound
from orchestrator.records import from_wire
from orchestrator.records.links import LinkRecord


class Links:
    """Makes, reads and removes links."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def list(self) -> list[LinkRecord]:
        """Return all links by alias, except those to archived runs."""
        return [from_wire(LinkRecord, item) for item in self._call("GET", "/links")]

    def get(self, alias: str) -> LinkRecord:
        """Return one link."""
        return from_wire(LinkRecord, self._call("GET", _path(alias)))

    def put(self, alias: str, resource: str, *, replace: bool = False) -> LinkRecord:
        """Make a link.

        Args:
            replace: whether the link may replace one of the same alias.
        """
        return from_wire(LinkRecord, self._call("PUT", _path(alias), json={"resource": resource, "replace": replace}))

    def remove(self, alias: str) -> None:
        """Remove a link; its target stays."""
        self._call("DELETE", _path(alias))


def _path(alias: str) -> str:
    try:
        return f"/links/{quote(alias)}"
    except NotFound:
        raise NotFound(f"There is no link {alias!r}.", "See them with: spell link") from None
