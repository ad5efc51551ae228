"""Finds a machine for each run, in the order of casting. One loop, woken by events, has these steps:

    adopt   once, at the start: runs that a dead server left go on where they are, or wait for their turn again
    admit   queued runs that fit are claimed, and a thread leads each of them (`life.Life`)

Order: first in, first out. A waiting run keeps its place: a later run may pass only if it needs nothing that the
waiting run lacks (a run that waits for a GPU does not block runs without one, nor those that take one it cannot have).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from orchestrator.errors import Conflict
from orchestrator.executors.base import Usage
from orchestrator.lifecycle.context import LEADS, Context
from orchestrator.lifecycle.life import Life
from orchestrator.lifecycle.waiting import waiting
from orchestrator.loops import Loop
from orchestrator.machine import Capacity, CoreLoad, CoreUse
from orchestrator.states import StopRequest
from orchestrator.store import ClaimedRun, MachineRequest, Unheeded

_log = logging.getLogger(__name__)
_ANSWER_S = 1.0
_NOT_CAST = 1 << 62
_CLOCK_S = 0.01  # the clock that measures pauses may be coarser than the one that ends a wait


class Scheduler:
    """Leads all runs of a home.

    Args:
        context: the tools that every run's life needs.
        capacity: what this machine has.
    """

    def __init__(self, context: Context, capacity: Capacity) -> None:
        self._context, self.capacity = context, capacity
        self._core_use = CoreUse()
        self._lives: dict[int, Life] = {}
        self._lock = threading.Lock()
        self._answer: dict[int, str] = {}
        self._answer_until = 0.0
        self._loop = Loop("scheduler", self._admit, wait_s=self._until_next_attempt_s)

    def start(self) -> None:
        """Adopt the runs that a dead server left, then admit runs until `close`."""
        self._adopt()
        self._loop.start()

    def wake(self) -> None:
        """Look at the queue again: a run was cast, or a machine became free."""
        self._loop.wake()

    def stop_requested(self, number: int) -> None:
        """Act on a stop request that was recorded for this run."""
        with self._lock:
            life = self._lives.get(number)
        if life:
            life.stop_requested()
        else:
            self.wake()  # it may still be in the queue

    def stop(self, number: int, reason: str, words: str) -> None:
        """Stop a run that met a stop condition, with this end reason. No error when it has ended by itself."""
        with contextlib.suppress(Conflict):
            self._context.store.request_stop(number, StopRequest.STOP, reason, words)
            self.stop_requested(number)

    def life(self, number: int) -> Life | None:
        """Return the life of a run that is led now; None for others."""
        with self._lock:
            return self._lives.get(number)

    def lives(self) -> list[Life]:
        """Return the lives of all runs that are led now, the oldest run first."""
        with self._lock:
            return [self._lives[number] for number in sorted(self._lives)]

    def running(self) -> list[tuple[int, tuple[int, ...], Callable[[], Usage | None]]]:
        """Return the runs that are led now: number, GPUs, and a function that returns their usage."""
        with self._lock:
            return [(number, life.run.gpus, life.usage) for number, life in self._lives.items()]

    def commands(self) -> list[tuple[int, int]]:
        """Return number and attempt of the runs whose command is running."""
        return [(life.run.number, life.run.attempt) for life in self.lives() if life.handle]

    def close(self) -> None:
        """Admit no more. Runs go on without us: their supervisors lead them."""
        self._context.closing.set()
        self._loop.close()

    def free(self) -> Capacity:
        """Return the capacity that no run holds now."""
        return self._left_by(self._context.store.occupying())

    def _left_by(self, runs: Iterable[MachineRequest]) -> Capacity:
        left = self.capacity
        for run in runs:
            left = left.without(run.cpus, run.memory_bytes, run.gpus)
        return left

    def waiting(self, numbers: Collection[int]) -> dict[int, str]:
        """Return what these queued runs wait for, in words, by number."""
        return self._waiting(self._context.store.queued(), self._context.store.paused(), numbers) if numbers else {}

    def waits_for(self, number: int) -> str:
        """Return what a run waits for, in words, as it was within the last second; "" if it does not wait.

        Each of many followers asks once a second, and every answer looks at the whole queue. So one is made for all.
        """
        now = time.monotonic()
        if now > self._answer_until:
            paused, queued = self._context.store.paused(), list(self._context.store.queued())
            self._answer = self._waiting(queued, paused, paused.union(run.number for run in queued))
            self._answer_until = now + _ANSWER_S
        return self._answer.get(number, "")

    def would_wait_for(self, wanted: MachineRequest) -> str:
        """Return what a run that was cast now would wait for, in words; "" if it would start at once.

        Args:
            wanted: what it needs; its number is not looked at.
        """
        new = replace(wanted, number=_NOT_CAST)
        free, queue, gpus_lack = self.free(), [*self._context.store.queued(), new], False
        for run in queue:  # as `_admit` goes through it
            gpus = free.suitable(run.gpu_type, run.gpu_memory_bytes) if run.gpus_wanted else ()
            if gpus_lack and run.gpus_wanted > len(gpus):
                continue
            if not free.fits(run.cpus, run.memory_bytes, 0):
                break
            if run.gpus_wanted > len(gpus):
                gpus_lack = True
                free = free.without(0, 0, gpus)
                continue
            if run is new:
                return ""
            free = free.without(run.cpus, run.memory_bytes, gpus[: run.gpus_wanted])
        return self._waiting(queue, set(), [_NOT_CAST]).get(_NOT_CAST, "")

    def _waiting(self, queue: Iterable[MachineRequest], paused: set[int], wanted: Collection[int]) -> dict[int, str]:
        return waiting(self.capacity, list(self._context.store.occupying()), queue, paused, wanted)

    # -- the loop -----------------------------------------------------------------------------------------------

    def _until_next_attempt_s(self) -> float | None:
        at = self._context.store.next_attempt_at()
        return None if at is None else max(0.0, at - time.time()) + _CLOCK_S

    def _adopt(self) -> None:
        for number in self._context.store.led():
            taken = self._context.store.take_over(number)
            if taken:
                self._lead(taken, lambda life: life.resume())
        for ended in self._context.store.unreleased():
            self._lead(ended, lambda life: life.give_back())

    def _admit(self) -> None:
        occupying = list(self._context.store.occupying())
        free, cores = self._left_by(occupying), CoreLoad(self.capacity.cores, self._core_use.lately())
        for other in occupying:
            cores.give(other.cpus, other.cores)
        gpus_lack = False
        for run in self._context.store.queued():
            if run.stop_request:  # it was asked to end between two attempts
                self._cancel(run.number)
                continue
            gpus = free.suitable(run.gpu_type, run.gpu_memory_bytes) if run.gpus_wanted else ()
            if gpus_lack and run.gpus_wanted > len(gpus):
                continue
            if not free.fits(run.cpus, run.memory_bytes, 0):
                return  # every run needs cores and memory, so no later run may pass
            if run.gpus_wanted > len(gpus):
                gpus_lack = True
                free = free.without(0, 0, gpus)  # they wait for it, and a later run may have others
                continue
            claimed = self._context.store.claim(run.number, gpus[: run.gpus_wanted], cores.least_used(run.cpus))
            if claimed:
                free = free.without(claimed.cpus, claimed.memory_bytes, claimed.gpus)
                cores.give(claimed.cpus, claimed.cores)
                self._lead(claimed, lambda life: life.lead())

    def _cancel(self, number: int) -> None:
        if self.life(number):
            return  # of the attempt before; we are woken when it is over
        taken = self._context.store.take_over(number)
        if taken:
            self._lead(taken, lambda life: life.cancel())

    def _lead(self, run: ClaimedRun, lead: Callable[[Life], None]) -> None:
        def thread() -> None:
            LEADS.set(run.number)
            try:
                lead(life)
            finally:
                with self._lock:
                    if self._lives.get(run.number) is life:
                        del self._lives[run.number]
                self.wake()

        try:
            life = Life(self._context, run, on_free=self.wake)
            with self._lock:
                self._lives[run.number] = life
            threading.Thread(target=thread, name=f"run-{run.number}", daemon=True).start()
        except Exception as error:  # for example an executor that is gone, or no more threads
            _log.exception("run %d", run.number)
            with self._lock:
                self._lives.pop(run.number, None)
            try:
                self._context.store.end(run.number, run.fence, "internal_error", str(error))
            except Unheeded:
                self._context.store.end(run.number, run.fence, "kill_requested")
