"""Making room: what earlier runs have left on this machine and nobody uses any more."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence

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
    if shop.store.summaries(states=[State.BUILDING], limit=1):
        older_than_s = max(older_than_s, _OLDER_WHILE_BUILDING_S)
    environments, images = shop.store.in_use()
    for executor in shop.executors.values():
        if executor.lacks():
            continue  # there is nothing of it that could be asked
        if not dry_run:
            yield functools.partial(_sweep, executor, scheduler)
        yield functools.partial(executor.collect, images, older_than_s, dry_run=dry_run)
    yield functools.partial(shop.environments.collect, environments, older_than_s, dry_run=dry_run)


def _sweep(executor: Executor, scheduler: Scheduler) -> Sequence[Removed]:
    def is_needed(number: int, attempt: int) -> bool:
        life = scheduler.life(number)
        return life is not None and life.run.attempt == attempt

    executor.sweep(is_needed)
    return ()
