"""Finds a machine for each run, in the order in which they were cast. One loop, woken by events, of these steps:

    adopt   once, at the start: runs that a dead server left go on where they are, or wait for their turn again
    admit   queued runs that fit are claimed, and a thread leads each of them (`lifecycle.Life`)

Order: first in, first out. A run that must wait keeps its place: a later one may pass only when it asks for nothing of
what the waiting one lacks (a run that waits for a GPU does not hold up runs without one).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from orchestrator.errors import Conflict
from orchestrator.executors.base import Usage
from orchestrator.lifecycle.context import Workshop
from orchestrator.lifecycle.life import Life
from orchestrator.loops import Loop
from orchestrator.machine import Capacity
from orchestrator.states import Wish
from orchestrator.store import ClaimedRun

_log = logging.getLogger(__name__)
_CLOCK_S = 0.01  # the clock that pauses are told by may be coarser than that of waiting


class Scheduler:
    """Leads all runs of a home.

    Args:
        workshop: the tools that every run's life needs.
        capacity: what this machine has.
    """

    def __init__(self, workshop: Workshop, capacity: Capacity) -> None:
        self._shop, self.capacity = workshop, capacity
        self._lives: dict[int, Life] = {}
        self._lock = threading.Lock()
        self._loop = Loop("scheduler", self._admit, wait_s=self._until_next_attempt_s)

    def start(self) -> None:
        """Adopt what a dead server left, then admit runs for ever."""
        self._adopt()
        self._loop.start()

    def wake(self) -> None:
        """A run was cast, or a machine became free."""
        self._loop.wake()

    def wished(self, number: int) -> None:
        """A wish was recorded for this run."""
        with self._lock:
            life = self._lives.get(number)
        if life:
            life.wished()
        else:
            self.wake()  # it may be in the queue

    def stop(self, number: int, reason: str, words: str) -> None:
        """Stop a run that met what it was asked to be stopped at, with this end reason; it may have ended by itself."""
        with contextlib.suppress(Conflict):
            self._shop.store.wish(number, Wish.STOP, reason, words)
            self.wished(number)

    def life(self, number: int) -> Life | None:
        """The life of a run that is led now."""
        with self._lock:
            return self._lives.get(number)

    def lives(self) -> list[Life]:
        """The lives of all runs that are led now, the oldest run first."""
        with self._lock:
            return [self._lives[number] for number in sorted(self._lives)]

    def running(self) -> list[tuple[int, tuple[int, ...], Callable[[], Usage | None]]]:
        """The runs that are led now: number, GPUs, and how to ask what they use."""
        with self._lock:
            return [(number, life.run.gpus, life.usage) for number, life in self._lives.items()]

    def close(self) -> None:
        """Admit no more. Runs go on without us: their supervisors lead them."""
        self._shop.closing.set()
        self._loop.close()

    def free(self) -> Capacity:
        """What no run holds now."""
        left = self.capacity
        for run in self._shop.store.occupying():
            left = left.without(run.cpus, run.memory_bytes, run.gpus)
        return left

    # -- the loop -----------------------------------------------------------------------------------------------

    def _until_next_attempt_s(self) -> float | None:
        at = self._shop.store.next_attempt_at()
        return None if at is None else max(0.0, at - time.time()) + _CLOCK_S

    def _adopt(self) -> None:
        for number in self._shop.store.led():
            taken = self._shop.store.take_over(number)
            if taken:
                self._lead(taken, lambda life: life.resume())
        for ended in self._shop.store.unreleased():
            self._lead(ended, lambda life: life.give_back())

    def _admit(self) -> None:
        free = self.free()
        blocked_gpus = False
        for run in self._shop.store.queued():
            if run.wish:  # it was asked to end between two attempts
                self._cancel(run.number)
                continue
            wants_gpus = run.gpus_wanted > 0
            if blocked_gpus and wants_gpus:
                continue
            if not free.fits(run.cpus, run.memory_bytes, 0):
                return  # every run needs cores and memory: nobody may pass
            if run.gpus_wanted > len(free.gpus):
                blocked_gpus = True
                continue
            claimed = self._shop.store.claim(run.number, free.gpus[: run.gpus_wanted])
            if claimed:
                free = free.without(claimed.cpus, claimed.memory_bytes, claimed.gpus)
                self._lead(claimed, lambda life: life.conduct())

    def _cancel(self, number: int) -> None:
        if self.life(number):
            return  # of the attempt before; we are woken when it is over
        taken = self._shop.store.take_over(number)
        if taken:
            self._lead(taken, lambda life: life.cancel())

    def _lead(self, run: ClaimedRun, lead: Callable[[Life], None]) -> None:
        def thread() -> None:
            try:
                lead(life)
            finally:
                with self._lock:
                    if self._lives.get(run.number) is life:
                        del self._lives[run.number]
                self.wake()

        try:
            life = Life(self._shop, run, on_free=self.wake)
            with self._lock:
                self._lives[run.number] = life
            threading.Thread(target=thread, name=f"run-{run.number}", daemon=True).start()
        except Exception as error:  # an executor that is gone, no more threads
            _log.exception("run %d", run.number)
            with self._lock:
                self._lives.pop(run.number, None)
            self._shop.store.end(run.number, run.fence, "internal_error", str(error))
