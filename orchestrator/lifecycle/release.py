"""Frees the machine of an attempt: nothing of the attempt may be left on it before another run gets it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)
_QUICKLY_S = 0.002
_RETRY_S = 2.0
_PATIENCE_S = 5.0


class Release:
    """Destroys what is left of an attempt, in a thread, and tries again until it succeeds.

    Args:
        number: the run.
        destroy: destroys it; raises while something may be left.
        tell: called once with the reason, if it takes longer than a few seconds.
        closing: set when the server ends; the next server goes on.
    """

    def __init__(
        self, number: int, destroy: Callable[[], None], tell: Callable[[str], None], closing: threading.Event
    ) -> None:
        self._number, self._destroy, self._tell, self._closing = number, destroy, tell, closing
        self._done, self._told = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"release-{number}", daemon=True)
        self._thread.start()
        self._done.wait(_QUICKLY_S)  # usually nothing is left to do

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return self._done.is_set()

    def wait(self, limit_s: float) -> None:
        """Wait until nothing is left, but not longer than the limit."""
        self._done.wait(limit_s)

    def join(self) -> None:
        """Wait until nothing is left, or the server ends."""
        self._thread.join(_PATIENCE_S)
        if self._thread.is_alive():
            self._tell_once("the rest of the attempt is still being removed")
        self._thread.join()

    def _tell_once(self, words: str) -> None:
        if not self._told.is_set():
            self._told.set()
            self._tell(f"Its machine is not free yet: {words}")

    def _run(self) -> None:
        while True:
            try:
                self._destroy()
            except Exception as error:  # any error: the machine is not free
                _log.warning("run %d is not released yet: %s", self._number, error)
                self._tell_once(str(error))
                if self._closing.wait(_RETRY_S):
                    return
            else:
                self._done.set()
                return
