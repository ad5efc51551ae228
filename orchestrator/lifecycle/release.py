"""Giving back a machine: nothing of an attempt may be left on it before anybody else gets it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)
_QUICKLY_S = 0.002
_RETRY_S = 2.0
_PATIENCE_S = 5.0


class Release:
    """Destroys what is left of an attempt, in a thread of its own, and tries again for as long as that fails.

    Args:
        number: the run.
        destroy: does it; raises while something may be left.
        tell: is told, once, why it takes longer than a few seconds.
        closing: set when the server ends; the next one goes on.
    """

    def __init__(
        self, number: int, destroy: Callable[[], None], tell: Callable[[str], None], closing: threading.Event
    ) -> None:
        self._number, self._destroy, self._tell, self._closing = number, destroy, tell, closing
        self._done, self._told = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"release-{number}", daemon=True)
        self._thread.start()
        self._done.wait(_QUICKLY_S)  # most executors have nothing left to do

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return self._done.is_set()

    def wait(self, limit_s: float) -> None:
        """Wait until nothing is left, for so long at most."""
        self._done.wait(limit_s)

    def join(self) -> None:
        """Wait until nothing is left, or the server ends."""
        self._thread.join(_PATIENCE_S)
        if self._thread.is_alive():
            self._tell_once("what is left of it is still being removed")
        self._thread.join()

    def _tell_once(self, words: str) -> None:
        if not self._told.is_set():
            self._told.set()
            self._tell(f"Its machine is not free yet: {words}")

    def _run(self) -> None:
        while True:
            try:
                self._destroy()
            except Exception as error:  # whatever it was: the machine is not free
                _log.warning("run %d is not released yet: %s", self._number, error)
                self._tell_once(str(error))
                if self._closing.wait(_RETRY_S):
                    return
            else:
                self._done.set()
                return
