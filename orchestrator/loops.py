"""The background loops of a server: each is one thread that makes a pass over its work whenever it is woken."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)
_ERROR_PAUSE_S = 1.0
_CLOSE_LIMIT_S = 10.0


class Loop:
    """Makes a pass at the start, after each wake, and when the wait after the last pass is over.

    No wake is lost: a loop that is woken during a pass makes another one. A step that raises (on a full disk, for example)
    is logged once for as long as it fails with the same words. The other steps of the pass are still made, and another
    pass follows after a pause, which the next wake ends.

    Args:
        name: the name of the thread, and of the loop in the log.
        steps: the functions that a pass calls, in this order.
        wait_s: called at the end of each pass. Returns the seconds until the next one, if nobody wakes the loop before;
            None to wait for a wake only.
        error_pause_s: seconds between a pass that failed and the next one.
    """

    def __init__(
        self,
        name: str,
        *steps: Callable[[], object],
        wait_s: Callable[[], float | None] = lambda: None,
        error_pause_s: float = _ERROR_PAUSE_S,
    ) -> None:
        self._name, self._ask_wait_s, self._error_pause_s = name, wait_s, error_pause_s
        self._steps = (*steps, self._see_when_next)
        self._wait_s: float | None = None
        self._woken, self._closing = threading.Event(), threading.Event()
        self._failing: dict[Callable[[], object], str] = {}
        self._begun = self._done = 0
        self._counted = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, which begins with a pass."""
        self._woken.set()
        self._thread.start()

    def wake(self) -> None:
        """Ask for a pass."""
        self._woken.set()

    def close(self, limit_s: float = _CLOSE_LIMIT_S) -> None:
        """End the thread; does nothing if it never started, or has ended already.

        Waits for the current step for `limit_s` at most: the next server does what this one leaves undone.
        """
        self._closing.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(limit_s)

    def is_closing(self) -> bool:
        """Whether the loop is ending, so that a long step should end early."""
        return self._closing.is_set()

    @property
    def begun(self) -> int:
        """The number of passes that have begun."""
        return self._begun

    def wait_for_pass(self, after: int, limit_s: float) -> None:
        """Wait for the end of a pass that has seen everything that existed when `begun` was `after`.

        Raises:
            TimeoutError: no such pass ended within `limit_s`.
        """
        with self._counted:
            if not self._counted.wait_for(lambda: self._done > after, limit_s):
                raise TimeoutError(f"The loop {self._name} made no pass within {limit_s} s.")

    def _run(self) -> None:
        while True:
            self._woken.wait(self._wait_s)
            self._woken.clear()  # before the pass: a wake during it may bring work that the pass has not seen
            if self._closing.is_set():
                return
            self._begun += 1
            failed = [step for step in self._steps if not self._succeeds(step)]
            if failed:
                self._woken.clear()  # a step may wake its own loop: if that ended the pause, a failing one would never pause
            with self._counted:
                self._done = self._begun
                self._counted.notify_all()
            if failed:
                if not self._closing.is_set():  # asked after the clear, as `close` sets this first and wakes then
                    self._woken.wait(self._error_pause_s)
                self._woken.set()

    def _see_when_next(self) -> None:
        self._wait_s = self._ask_wait_s()

    def _succeeds(self, step: Callable[[], object]) -> bool:
        if self._closing.is_set():
            return True
        try:
            step()
        except Exception as error:
            if self._failing.get(step) != (words := repr(error)):  # the same failure may last for days
                _log.exception("%s: a pass failed; the next one is in %g s", self._name, self._error_pause_s)
            self._failing[step] = words
            return False
        self._failing.pop(step, None)
        return True
