"""Making room: what earlier runs have left on this machine and nobody uses any more."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from orchestrator.environments.collected import Removed
from orchestrator.errors import SpellError
from orchestrator.executors.base import Executor
from orchestrator.records import CollectedRecord, CollectionRecord
from orchestrator.scheduler import Scheduler
from orchestrator.states import State
from orchestrator.workshop import Workshop

_log = logging.getLogger(__name__)
# A run that builds may take an image now and an environment an hour later; the store has neither before it has both.
_OLDER_WHILE_BUILDING_S = 24 * 3600.0
_ENVIRONMENTS, _IMAGES = 0, 1  # of what the store says is in use
_CALL_S = 0.01  # who is called reads the clock a little later


class _Collected(Protocol):
    def __call__(self, keep: set[str], older_than_s: float, *, dry_run: bool) -> Sequence[Removed]: ...


def collect(shop: Workshop, scheduler: Scheduler, older_than_s: float, *, dry_run: bool) -> CollectionRecord:
    """Remove containers of ended runs, and images and environments that no active run uses and nobody used for long.

    What cannot be looked at now (an engine that is down) is told in `warnings`, and does not keep the rest.

    Args:
        older_than_s: how long nobody must have used them.
        dry_run: only tell.
    """
    removed: list[Removed] = []
    warnings: list[str] = []
    for part in _parts(shop, scheduler, older_than_s, dry_run=dry_run):
        try:
            removed += part()
        except SpellError as error:
            warnings.append(error.message)
        except OSError as error:
            _log.exception("not all could be collected")
            warnings.append(f"{error.filename or 'A file'}: {error.strerror or error}")
    return CollectionRecord([CollectedRecord(item.what, item.size_bytes) for item in removed], warnings)


def _parts(
    shop: Workshop, scheduler: Scheduler, older_than_s: float, *, dry_run: bool
) -> Iterator[Callable[[], Sequence[Removed]]]:
    def unused(column: int, collected: _Collected) -> Sequence[Removed]:
        # In this order: a run that begins after this moment marks what it takes as used, one that has begun before it
        # is building still, or in the store.
        began = time.time()
        is_building = bool(shop.store.summaries(states=[State.BUILDING], limit=1))
        keep = shop.store.in_use()[column]
        unused_s = max(older_than_s, _OLDER_WHILE_BUILDING_S if is_building else 0.0)
        return collected(keep, unused_s + time.time() - began + _CALL_S, dry_run=dry_run)

    for executor in shop.executors.values():
        if lack := executor.lacks():
            if executor.is_chosen:
                yield functools.partial(_warn, lack)
            continue  # there is nothing of it that could be asked
        if not dry_run:
            yield functools.partial(_sweep, executor, scheduler)
        yield functools.partial(unused, _IMAGES, executor.collect)
    yield functools.partial(unused, _ENVIRONMENTS, shop.environments.collect)


def _warn(lack: str) -> Sequence[Removed]:
    raise SpellError(lack)


def _sweep(executor: Executor, scheduler: Scheduler) -> Sequence[Removed]:
    def is_needed(number: int, attempt: int) -> bool:
        life = scheduler.life(number)
        return life is not None and life.run.attempt == attempt

    executor.sweep(is_needed)
    return ()
