"""Commands beside a run's own, in its surroundings."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.executors.base import Session
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.service.access import Access, Who
from orchestrator.service.stats import not_running
from orchestrator.store import Store

__all__ = ["Exec", "Session"]


class Exec:
    """Starts commands beside those of the runs of one home."""

    def __init__(self, store: Store, scheduler: Scheduler, access: Access) -> None:
        self._store, self._scheduler, self._access = store, scheduler, access

    def open(self, who: Who, reference: str, command: Sequence[str], term: str, *, terminal: bool) -> Session:
        """Start a command, or a shell, beside a run's own.

        Args:
            command: program and arguments; one word is a line for a shell, none the shell itself.
            term: the kind of terminal that somebody sits at; "" for the usual.
            terminal: whether it gets a terminal.

        Raises:
            NotFound, Conflict: there is no such run; it does not run, or not in a container.
        """
        number = self._access.resolve(who, reference)
        life = self._scheduler.life(number)
        if life is None or life.handle is None:
            raise not_running(self._store, number)
        return life.open_session(command, term, terminal=terminal)
