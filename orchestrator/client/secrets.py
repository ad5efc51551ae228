"""Secrets."""

from __future__ import annotations

from orchestrator.client.transport import Transport, quote
from orchestrator.errors import NotFound
from orchestrator.records import from_wire
from orchestrator.records.secrets import SecretRecord
from orchestrator.spec.names import check_secret_name


class Secrets:
    """Sets, lists and removes secrets. Only the command of a run can read a value."""

    def __init__(self, transport: Transport) -> None:
        self._call = transport.call

    def put(self, name: str, value: bytes) -> SecretRecord:
        """Set a secret, or replace one of the same name.

        Args:
            value: text in UTF-8, at most 64 KiB.

        Raises:
            InvalidConfig: if the name or the value is invalid.
        """
        check_secret_name(name)
        return from_wire(SecretRecord, self._call("PUT", f"/secrets/{name}", content=value))

    def list(self) -> list[SecretRecord]:
        """Return all secrets by name, without their values."""
        return [from_wire(SecretRecord, item) for item in self._call("GET", "/secrets")]

    def remove(self, name: str) -> None:
        """Remove a secret.

        Raises:
            NotFound: if it does not exist.
        """
        try:
            path = f"/secrets/{quote(name)}"
        except NotFound:
            raise NotFound(f"There is no secret {name!r}.", "See them with: spell secret list") from None
        self._call("DELETE", path)
