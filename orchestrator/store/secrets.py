"""Secrets in the store: encrypted. `data/secrets` decrypts them."""

from __future__ import annotations

import time
from collections.abc import Collection

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from orchestrator.errors import NotFound
from orchestrator.records.secrets import SecretRecord
from orchestrator.store.database import Database
from orchestrator.store.tables import secrets


class SecretStore:
    """Encrypted secrets of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, name: str, encrypted: bytes) -> SecretRecord:
        """Record a secret, in place of an earlier one of this name."""
        now = time.time()
        row = upsert(secrets).values(name=name, sealed=encrypted, created_at=now, updated_at=now)
        row = row.on_conflict_do_update(index_elements=["name"], set_={"sealed": encrypted, "updated_at": now})
        with self._db.write() as connection:
            connection.execute(row)
            created_at = connection.scalar(select(secrets.c.created_at).where(secrets.c.name == name))
        return SecretRecord(name=name, created_at=float(created_at or now), updated_at=now)

    def remove(self, name: str) -> None:
        """Remove a secret.

        Raises:
            NotFound: when it does not exist.
        """
        with self._db.write() as connection:
            gone = connection.execute(delete(secrets).where(secrets.c.name == name)).rowcount
        if not gone:
            raise NotFound(f"There is no secret {name!r}.", "See them with: spell secret list")

    def records(self) -> list[SecretRecord]:
        """Return the records of all secrets, by name."""
        query = select(secrets.c.name, secrets.c.created_at, secrets.c.updated_at).order_by(secrets.c.name)
        with self._db.read() as connection:
            return [SecretRecord(**row._mapping) for row in connection.execute(query)]

    def encrypted(self, names: Collection[str]) -> dict[str, bytes]:
        """Return the encrypted values of those of these secrets that exist."""
        query = select(secrets.c.name, secrets.c.sealed).where(secrets.c.name.in_(names))
        with self._db.read() as connection:
            return {str(name): bytes(encrypted) for name, encrypted in connection.execute(query)}
