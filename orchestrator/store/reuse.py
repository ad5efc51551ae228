"""Complete runs, found by the fingerprint of their spec, and the content of their mounts."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, or_, select, text

from orchestrator.store.database import Database
from orchestrator.store.tables import artifacts, mounts, runs, uploads


@dataclass(frozen=True, slots=True)
class Content:
    """One file of a resource.

    Attributes:
        path: relative to the resource; "" for the resource itself.
        stored: its path among the outputs of its run.
        sha256: its hash; None until it is computed.
    """

    path: str
    mode: str
    size: int
    stored: str
    sha256: str | None


class ReuseStore:
    """Queries that decide whether an earlier run can be reused for a new one."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def complete(self, fingerprint: str, limit: int) -> list[tuple[int, int]]:
        """Return complete, unarchived runs with this fingerprint, newest first: number, and count of outputs."""
        query = (
            select(runs.c.number, runs.c.outputs_count)
            # the second condition is exactly the text of the index
            .where(runs.c.fingerprint == fingerprint, text("state = 'complete' AND NOT archived"))
            .order_by(runs.c.number.desc())
            .limit(limit)
        )
        with self._db.read() as connection:
            return [(row.number, row.outputs_count) for row in connection.execute(query)]

    def mounts(self, number: int) -> list[tuple[str, str]]:
        """Return path and resource of each mount of a run."""
        query = select(mounts.c.path, mounts.c.resource).where(mounts.c.run == number)
        with self._db.read() as connection:
            return [(row.path, row.resource) for row in connection.execute(query)]

    def content(self, number: int, path: str) -> list[Content]:
        """Return the files of an output of a run, or for "" of all its outputs, by path."""
        query = select(artifacts).where(artifacts.c.run == number, artifacts.c.note == "").order_by(artifacts.c.path)
        if path:
            below = and_(artifacts.c.path >= f"{path}/", artifacts.c.path < f"{path}0")  # "0" comes next after "/"
            query = query.where(or_(artifacts.c.path == path, below))
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        start = len(path) + 1 if path else 0
        return [Content(row.path[start:], row.mode, row.size, row.path, row.sha256) for row in rows]

    def upload_tree(self, name: str) -> str | None:
        """Return the digest of an upload's content; None for one without a record."""
        with self._db.read() as connection:
            return connection.scalar(select(uploads.c.tree).where(uploads.c.name == name))
