"""Links: aliases for resources."""

from __future__ import annotations

import time

from sqlalchemy import Select, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from orchestrator.errors import Conflict, NotFound
from orchestrator.records.links import LinkRecord
from orchestrator.store.database import Database
from orchestrator.store.tables import links, runs


class LinkStore:
    """Links of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, alias: str, resource: str, *, replace: bool) -> LinkRecord:
        """Make a link.

        Args:
            resource: in canonical form.
            replace: whether an existing link may be changed.

        Raises:
            Conflict: when the link exists, leads elsewhere, and must not be replaced.
        """
        parts = resource.split("/")
        values = {
            "resource": resource,
            "source_run": int(parts[1]) if parts[0] == "runs" else None,
            "created_at": time.time(),
        }
        with self._db.write() as connection:
            found = connection.scalar(select(links.c.resource).where(links.c.alias == alias))
            if found not in (None, resource) and not replace:
                raise Conflict(f"A link {alias} → {found} already exists.", "Replace it with --force.")
            new = upsert(links).values(alias=alias, **values)
            connection.execute(new.on_conflict_do_update(index_elements=[links.c.alias], set_=values))
        return self.get(alias)

    def remove(self, alias: str) -> None:
        """Remove a link. Its target stays.

        Raises:
            NotFound: when it does not exist.
        """
        with self._db.write() as connection:
            if not connection.execute(delete(links).where(links.c.alias == alias)).rowcount:
                raise _missing(alias)

    def get(self, alias: str) -> LinkRecord:
        """Return one link, whatever its target is.

        Raises:
            NotFound: there is no such link.
        """
        with self._db.read() as connection:
            row = connection.execute(_records().where(links.c.alias == alias)).one_or_none()
        if row is None:
            raise _missing(alias)
        return LinkRecord(**row._mapping)

    def list(self) -> list[LinkRecord]:
        """Return all links by alias, except those to archived runs."""
        query = _records().outerjoin(runs, runs.c.number == links.c.source_run)
        query = query.where(runs.c.archived.is_not(True)).order_by(links.c.alias)
        with self._db.read() as connection:
            return [LinkRecord(**row._mapping) for row in connection.execute(query)]


def _records() -> Select[tuple[str, str, float]]:
    return select(links.c.alias, links.c.resource, links.c.created_at)


def _missing(alias: str) -> NotFound:
    return NotFound(f"There is no link {alias!r}.", "See them with: spell link")
