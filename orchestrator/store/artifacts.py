"""Artifacts of runs: the manifest of their outputs, and the hashes of these."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, bindparam, delete, exists, insert, not_, select, text, update

from orchestrator.content.manifest import EXECUTABLE, FILE, LINK
from orchestrator.records.files import ArtifactRecord
from orchestrator.spec.run import to_wire
from orchestrator.store.database import Database
from orchestrator.store.tables import SHARED, artifacts, runs

_SAME_AT_MOST = 4
# Statements for every run are built once, because building takes SQLAlchemy longer than running takes SQLite.
_HAS_ARTIFACTS = select(exists().where(artifacts.c.run == bindparam("run")))
_HAS_LINKS = select(exists().where(artifacts.c.run == bindparam("run"), artifacts.c.mode == LINK))


class ArtifactStore:
    """Artifacts of the runs of one home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def set_artifacts(self, number: int, found: Sequence[ArtifactRecord]) -> None:
        """Record the outputs of a run; replaces those that an interrupted save has recorded."""
        if not found and not self._has_artifacts(number):
            return  # most runs leave nothing, so they need not wait for the disk
        kept = [item for item in found if not item.note]
        with self._db.write() as connection:
            connection.execute(delete(artifacts).where(artifacts.c.run == number))
            if found:
                connection.execute(insert(artifacts), [to_wire(item) for item in found])
            connection.execute(
                update(runs)
                .where(runs.c.number == number)
                .values(outputs_count=len(kept), outputs_bytes=sum(item.size for item in kept))
            )

    def _has_artifacts(self, number: int) -> bool:
        with self._db.read() as connection:
            return bool(connection.scalar(_HAS_ARTIFACTS, {"run": number}))

    def artifacts(self, number: int) -> list[ArtifactRecord]:
        """Return the outputs of a run, by path; those that were not kept too, with their note."""
        query = select(artifacts).where(artifacts.c.run == number).order_by(artifacts.c.path)
        with self._db.read() as connection:
            return [ArtifactRecord(**row._mapping) for row in connection.execute(query)]

    def has_links(self, number: int) -> bool:
        """Whether a run left links."""
        with self._db.read() as connection:
            return bool(connection.scalar(_HAS_LINKS, {"run": number}))

    def unhashed(self, limit: int) -> list[ArtifactRecord]:
        """Return kept outputs without a hash, the small ones first, because big ones would delay them."""
        query = select(artifacts).where(artifacts.c.sha256.is_(None), artifacts.c.note == "")
        query = query.order_by(artifacts.c.size).limit(limit)
        with self._db.read() as connection:
            return [ArtifactRecord(**row._mapping) for row in connection.execute(query)]

    def same_artifacts(self, item: ArtifactRecord, sha256: str) -> list[ArtifactRecord]:
        """Return a few kept outputs with the bytes and mode of this one, those of the latest runs first.

        Returns none for an output of less than a block, which is too small to share its bytes.
        """
        found = artifacts.c
        query = (
            select(artifacts)
            .join(runs, runs.c.number == found.run)
            .where(text(SHARED), found.sha256 == sha256, found.size == item.size, found.mode == item.mode)
            .where(found.mode.in_([FILE, EXECUTABLE]), found.note == "", runs.c.outputs_removed_at.is_(None))
            .where(not_(and_(found.run == item.run, found.path == item.path)))
            .order_by(found.run.desc())
            .limit(_SAME_AT_MOST)
        )
        with self._db.read() as connection:
            return [ArtifactRecord(**row._mapping) for row in connection.execute(query)]

    def set_hashes(self, found: Sequence[tuple[int, str, str]]) -> None:
        """Record `(run, path, sha256)`."""
        with self._db.write() as connection:
            for number, path, sha256 in found:
                connection.execute(
                    update(artifacts).where(artifacts.c.run == number, artifacts.c.path == path).values(sha256=sha256)
                )
