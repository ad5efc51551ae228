"""Garbage collection: removes what earlier runs left on this machine and no run needs any more."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from orchestrator.data import caches
from orchestrator.data.uploads import gc_partial
from orchestrator.environments import Limit
from orchestrator.errors import SpellError
from orchestrator.executors.base import Executor
from orchestrator.lifecycle.context import Context
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.records.gc import GcRecord, RemovedRecord
from orchestrator.service import gc_runs
from orchestrator.service.access import Who
from orchestrator.spec.filters import Filter
from orchestrator.states import State

_log = logging.getLogger(__name__)
# A run that builds may get its image now and its environment an hour later; the store has neither until it has both.
_OLDER_WHILE_BUILDING_S = 24 * 3600.0
_TAKEN_S = 3600.0
_NEVER_S = 1e10
_ENVIRONMENTS, _IMAGES = 0, 1  # positions in the answer of Store.in_use
_CALL_S = 0.01  # the function that is called reads the clock a little later


class Gc:
    """Garbage collection of one home.

    Args:
        context: store, home and tools.
        scheduler: knows the runs that are active in this server.
        changed: called after each removal.
    """

    def __init__(self, context: Context, scheduler: Scheduler, changed: Callable[[], None]) -> None:
        self._context, self._scheduler, self._changed = context, scheduler, changed
        self._removing = threading.Lock()  # two at once would report the same things twice

    def remove(
        self, who: Who, older_than_s: float, keep_bytes: int | None, *, dry_run: bool, only: str = ""
    ) -> GcRecord:
        """Remove everything that no run needs and that was not used for a while.

        That is: containers of ended runs, images, environments, snapshots of code, incomplete uploads, outputs and work
        dirs of archived runs, and caches of runs. If a part cannot be looked at now (an engine is down), `warnings` says so and the other
        parts are removed.

        Args:
            older_than_s: things that were used in this time stay.
            keep_bytes: the size to which environments, outputs of archived runs, and caches are reduced: beyond it the
                least recently used ones go, even young ones. None for no limit.
            dry_run: only report.
            only: `caches` to leave all else; "" for everything.
        """
        removed: list[RemovedRecord] = []
        warnings: list[str] = []
        with self._removing, self._context.store.way_out():
            of_caches = functools.partial(
                gc_caches, self._context, time.time() - older_than_s, keep_bytes, dry_run=dry_run
            )
            others = () if only else _parts(self._context, self._scheduler, older_than_s, keep_bytes, dry_run=dry_run)
            for part in (*others, of_caches):
                try:
                    removed += part()
                except SpellError as error:
                    warnings.append(error.message)
                except OSError as error:
                    _log.exception("a part of gc failed")
                    warnings.append(f"{error.filename or 'A file'}: {error.strerror or error}")
        if not dry_run:
            self._changed()
        return GcRecord(removed, warnings, caches.size_bytes(self._context.home))


class _Removal(Protocol):
    def __call__(self, keep: set[str], older_than_s: float, *, dry_run: bool) -> Sequence[RemovedRecord]: ...


def _parts(
    context: Context, scheduler: Scheduler, older_than_s: float, keep_bytes: int | None, *, dry_run: bool
) -> Iterator[Callable[[], Sequence[RemovedRecord]]]:
    before = time.time() - older_than_s
    for executor in context.executors.values():
        if lack := executor.lacks():
            if executor.is_chosen:
                yield functools.partial(_warn, lack)
            continue  # it cannot say what it has
        if not dry_run:
            yield functools.partial(_sweep, executor, scheduler)
        yield functools.partial(_unused, context, _IMAGES, executor.gc, older_than_s, dry_run=dry_run)
    yield functools.partial(_environments, context, keep_bytes, older_than_s, dry_run=dry_run)
    # outputs first: a run whose outputs are needed keeps its code, too
    yield functools.partial(gc_runs.gc_outputs, context, before, keep_bytes, dry_run=dry_run)
    yield functools.partial(gc_runs.gc_work, context, before, dry_run=dry_run)
    yield functools.partial(gc_runs.gc_snapshots, context, min(before, time.time() - gc_runs.CAST_S), dry_run=dry_run)
    yield functools.partial(gc_partial, context.home, older_than_s, dry_run=dry_run)


def gc_caches(
    context: Context, before: float, keep_bytes: int | None, *, dry_run: bool = False
) -> Sequence[RemovedRecord]:
    """Remove what was not used since a moment from the caches of runs; see `caches.gc`."""
    return caches.gc(context.home, before, keep_bytes, context.store.gc.busy_since(), dry_run=dry_run)


def limit_environments(context: Context, keep_bytes: int) -> Sequence[RemovedRecord]:
    """Remove the least recently used environments until the rest takes at most `keep_bytes`.

    Environments that were used within the last hour stay: a run may be about to use them.
    """
    return _environments(context, keep_bytes, _NEVER_S, dry_run=False, young_s=_TAKEN_S)


def _environments(
    context: Context, keep_bytes: int | None, older_than_s: float, *, dry_run: bool, young_s: float = 0.0
) -> Sequence[RemovedRecord]:
    limit = None
    if keep_bytes is not None:
        began = time.time()  # in this order; see `_unused`
        # a run that builds may have chosen a young environment; the store knows it only after the build
        young_s = _TAKEN_S if _is_building(context) else young_s
        limit = Limit(keep_bytes, began - young_s - _CALL_S)
    removal = functools.partial(context.environments.gc, limit=limit)
    return _unused(context, _ENVIRONMENTS, removal, older_than_s, dry_run=dry_run)


def _unused(
    context: Context, column: int, removal: _Removal, older_than_s: float, *, dry_run: bool
) -> Sequence[RemovedRecord]:
    # In this order: a run that begins after this moment marks its environment and image as used; one that began before
    # is still building, or in the store.
    began = time.time()
    is_building = _is_building(context)
    keep = context.store.in_use()[column]
    unused_s = max(older_than_s, _OLDER_WHILE_BUILDING_S if is_building else 0.0)
    return removal(keep, unused_s + time.time() - began + _CALL_S, dry_run=dry_run)


def _is_building(context: Context) -> bool:
    return bool(context.store.summaries(Filter(states=[State.BUILDING]), limit=1))


def _warn(lack: str) -> Sequence[RemovedRecord]:
    raise SpellError(lack)


def _sweep(executor: Executor, scheduler: Scheduler) -> Sequence[RemovedRecord]:
    def is_needed(number: int, attempt: int) -> bool:
        life = scheduler.life(number)
        return life is not None and life.run.attempt == attempt

    executor.sweep(is_needed)
    return ()
