"""The ports that runs listen on."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from orchestrator.errors import NotFound
from orchestrator.executors.base import Executor, Handle
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.records.ports import PortRecord
from orchestrator.service.access import Access, Who
from orchestrator.service.stats import not_running
from orchestrator.store import Store


class Ports:
    """The ports of one home's runs."""

    def __init__(self, store: Store, scheduler: Scheduler, access: Access) -> None:
        self._store, self._scheduler, self._access = store, scheduler, access

    def list(self, who: Who, reference: str) -> Sequence[PortRecord]:
        """The TCP ports that processes of a run listen on, in order.

        Raises:
            NotFound: the run does not exist.
            Conflict: it does not run now.
            ExecutorFailed: its ports cannot be known now.
        """
        _, executor, handle = self._running(who, reference)
        return executor.ports(handle)

    def connect(self, who: Who, reference: str, port: int) -> socket.socket:
        """Return a connection to a port of a run, which the caller closes.

        Raises:
            NotFound: the run does not exist, or no process of it listens on this port.
            Conflict: it does not run now.
            ExecutorFailed: the port does not answer.
        """
        number, executor, handle = self._running(who, reference)
        connection = executor.connect(handle, port)
        if connection is None:
            raise NotFound(
                f"Run {number} does not listen on port {port}.", f"See where it listens: spell port {number}"
            )
        return connection

    def _running(self, who: Who, reference: str) -> tuple[int, Executor, Handle]:
        number = self._access.resolve(who, reference)
        life = self._scheduler.life(number)
        handle = life.handle if life else None
        if life is None or handle is None:
            raise not_running(self._store, number)
        return number, life.executor, handle
