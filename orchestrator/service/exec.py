"""Additional commands beside that of a run."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.executors.running_exec import RunningExec
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.service.access import Access, Who
from orchestrator.service.stats import not_running
from orchestrator.store import Store

__all__ = ["Exec", "RunningExec"]


class Exec:
    """Starts additional commands beside those of one home's runs."""

    def __init__(self, store: Store, scheduler: Scheduler, access: Access) -> None:
        self._store, self._scheduler, self._access = store, scheduler, access

    def start(self, who: Who, reference: str, command: Sequence[str], term: str, *, terminal: bool) -> RunningExec:
        """Start a command, or a shell, beside that of a run.

        Args:
            command: program and arguments. One word is a line for a shell; no word starts a shell.
            term: the type of the person's terminal (TERM); "" for the default.
            terminal: whether the command gets a terminal.

        Raises:
            NotFound: the run does not exist.
            Conflict: it does not run now.
        """
        number = self._access.resolve(who, reference)
        life = self._scheduler.life(number)
        if life is None or life.handle is None:
            raise not_running(self._store, number)
        return life.open_exec(command, term, terminal=terminal)
