"""Imports of runs from other trackers: a run is recorded in its final state, with metrics, outputs and log, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import TypeAdapter, ValidationError

from orchestrator.data import imports
from orchestrator.errors import DiskFull, InvalidConfig, is_disk_full
from orchestrator.lifecycle.context import Context
from orchestrator.records.casts import CastRecord
from orchestrator.records.imports import ImportedRun, ImportRecord
from orchestrator.service.access import Access, Who
from orchestrator.service.metrics import Metrics
from orchestrator.service.quota import Quota
from orchestrator.spec.validate import read_spec
from orchestrator.states import ENDS
from orchestrator.store import CastBefore

_REASONS = "imported_"
_READER = TypeAdapter(ImportedRun)


class Imports:
    """The imports of one home."""

    def __init__(self, context: Context, access: Access, quota: Quota, metrics: Metrics) -> None:
        self._context, self._store, self._access = context, context.store, access
        self._quota, self._sent = quota, metrics

    def list(self, who: Who) -> list[ImportRecord]:
        """Where all imported runs came from."""
        return self._store.imports.list()

    @contextmanager
    def arriving(self, who: Who, size_bytes: int) -> Iterator[imports.Arriving]:
        """A place for an archive of this size, which is removed at the end if it became no run.

        Raises:
            DiskFull: see `Quota.check_quota`, or there is no room.
        """
        self._quota.check_quota(size_bytes)
        try:
            arriving = imports.Arriving(self._context.home, size_bytes=size_bytes)
            try:
                yield arriving
            finally:
                if not arriving.is_recorded:
                    arriving.remove()
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull("The disk is full: nothing was imported.", "Free some space: spell gc") from error
            raise

    def add(self, who: Who, arriving: imports.Arriving) -> CastRecord:
        """Record the run of an archive that has arrived.

        Raises:
            InvalidConfig: the archive or the run is not valid.
            NotFound: its project does not exist.
        """
        new = _read(arriving.unpack())
        spec = read_spec(new.spec)
        if spec.project:
            self._store.projects.require(self._access.resolve_project(who, spec.project))
        try:
            outputs = arriving.outputs()
            number = self._store.imports.add(new, spec, outputs, lambda number: arriving.note(number, new.origin))
        except CastBefore as before:
            return CastRecord(before.number, "", [], reused=True)
        arriving.is_recorded = True
        arriving.finish(number)
        self._sent.summaries(who, str(number))  # takes them into the store: lists of runs are sorted by them
        self._context.hasher.wake()
        self._quota.changed()
        return CastRecord(number, "", [])


def _read(words: bytes) -> ImportedRun:
    try:
        new = _READER.validate_json(words)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidConfig(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if not new.reason.startswith(_REASONS) or new.reason not in ENDS or not new.origin:
        raise InvalidConfig(f"{new.reason!r} is no end of an imported run.")
    return new
