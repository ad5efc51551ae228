"""Secrets: set, listed without values, removed. Only the launch of a run reads a value."""

from __future__ import annotations

from orchestrator.data import secrets
from orchestrator.records.secrets import SecretRecord
from orchestrator.service.access import Access, Who

MAX_BYTES = secrets.MAX_BYTES
"""The maximal length of a value."""


class Secrets:
    """The secrets of one home."""

    def __init__(self, kept: secrets.Secrets, access: Access) -> None:
        self._kept, self._access = kept, access

    def list(self, who: Who) -> list[SecretRecord]:
        """All secrets by name, without their values."""
        return self._kept.records()

    def put(self, who: Who, name: str, value: bytes) -> SecretRecord:
        """Set a secret, or replace its value; raises as `data.secrets.Secrets.put`."""
        return self._kept.put(self._access.resolve_secret(who, name), value)

    def remove(self, who: Who, name: str) -> None:
        """Remove a secret. Running commands keep its value; queued runs that need it will fail. Raises NotFound."""
        self._kept.remove(self._access.resolve_secret(who, name))
