"""Leads what is made of several runs (searches, workflows) on: one thread, woken when a run has ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)
_ERROR_PAUSE_S = 1.0


class Loop:
    """Calls each of `advances` at the start, and again after every end of a run.

    Args:
        advances: look at the store and do what can be done now; they keep nothing in memory that a next server would
            miss, and may be called at any time.
    """

    def __init__(self, advances: Sequence[Callable[[], None]]) -> None:
        self._advances = advances
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="controllers", daemon=True)

    def start(self) -> None:
        """Begin; what a dead server left is led on first."""
        self._wake.set()
        self._thread.start()

    def wake(self) -> None:
        """A run has ended, or something new is to be led."""
        self._wake.set()

    def close(self) -> None:
        """End. Runs go on without us; a next server goes on from the store."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        failing: dict[Callable[[], None], str] = {}
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            for advance in self._advances:
                if self._closing.is_set():
                    return
                try:
                    advance()
                    failing.pop(advance, None)
                except Exception as error:  # a full disk, say: what waits must go on afterwards
                    if failing.get(advance) != (words := repr(error)):  # it may be so for days
                        _log.exception("%s", getattr(advance, "__qualname__", "advance"))
                    failing[advance] = words
                    self._closing.wait(_ERROR_PAUSE_S)
                    self._wake.set()
