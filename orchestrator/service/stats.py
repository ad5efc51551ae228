"""The CPU, memory and GPUs that runs use. Asks all executors at the same time: one that hangs delays no other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import Conflict
from orchestrator.executors.base import Usage
from orchestrator.lifecycle.life import Life
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.machine import gpu_samples
from orchestrator.records.runs import SampleRecord, StatRecord
from orchestrator.service.access import Access, Who
from orchestrator.states import State, spoken
from orchestrator.store import Store
from orchestrator.telemetry.complaints import Complaints

_log = logging.getLogger(__name__)
_ANSWER_LIMIT_S = 2.0
_BETWEEN_S = 0.5  # between two readings, for the rate of CPU time


@dataclass(frozen=True, slots=True)
class _Reading:
    at: float
    usage: Usage


class Stats:
    """The usage of the runs of one home, now and in the past.

    Args:
        store: has their names, times and samples.
        scheduler: knows the active runs.
        access: resolves references.
    """

    def __init__(self, store: Store, scheduler: Scheduler, access: Access) -> None:
        self._store, self._scheduler, self._access = store, scheduler, access
        self._asking: set[int] = set()
        self._lock = threading.Lock()
        self._complaints = Complaints(_log, "the usage of run %d is unknown")

    def list(self, who: Who, references: Sequence[str]) -> list[StatRecord]:
        """The usage of these runs now; of all running ones if `references` is empty.

        Raises:
            NotFound: a run does not exist.
            Conflict: it is not running.
        """
        lives = self._running(who, references)
        self._complaints.forget_all_but([life.run.number for life in self._scheduler.lives()])
        first = self._read(lives, _ANSWER_LIMIT_S)
        began = min((reading.at for reading in first.values()), default=0.0)
        time.sleep(max(0.0, began + _BETWEEN_S - time.monotonic()) if first else 0.0)
        again = self._read([life for life in lives if life.run.number in first], _ANSWER_LIMIT_S)
        return [self._record(life, first.get(life.run.number), again.get(life.run.number)) for life in lives]

    def samples(self, who: Who, reference: str) -> Sequence[SampleRecord]:
        """The samples of a run, in order of time."""
        return self._store.samples(self._access.resolve(who, reference))

    def _running(self, who: Who, references: Sequence[str]) -> Sequence[Life]:
        if not references:
            return [life for life in self._scheduler.lives() if life.handle]
        found = {}
        for number in self._access.resolve_all(who, references):
            life = self._scheduler.life(number)
            if life is None or life.handle is None:
                raise not_running(self._store, number)
            found[number] = life
        return [*found.values()]

    def _read(self, lives: Sequence[Life], limit_s: float) -> Mapping[int, _Reading]:
        """One reading of each run whose executor answers in time."""
        found: dict[int, _Reading] = {}
        threads = [self._ask(life, found.setdefault) for life in lives]
        deadline = time.monotonic() + limit_s
        for thread in filter(None, threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        return dict(found)

    def _ask(self, life: Life, answer: Callable[[int, _Reading], object]) -> threading.Thread | None:
        """Read the usage of a run in a thread, unless an earlier reading of it hangs."""
        number = life.run.number

        def ask() -> None:
            began, usage = time.monotonic(), None
            with self._complaints.of(number):
                usage = life.usage()
            with self._lock:
                self._asking.discard(number)
            if usage:
                answer(number, _Reading((began + time.monotonic()) / 2, usage))

        with self._lock:
            if number in self._asking:
                return None
            self._asking.add(number)
        thread = threading.Thread(target=ask, name=f"stats-{number}", daemon=True)
        thread.start()
        return thread

    def _record(self, life: Life, first: _Reading | None, again: _Reading | None) -> StatRecord:
        last, rate = again or first, None
        if first and again:
            spent_s = max(0.0, again.usage.cpu_time_s - first.usage.cpu_time_s)
            rate = round(100 * spent_s / max(again.at - first.at, 1e-3), 1)
        summary = self._store.summary(life.run.number)
        return StatRecord(
            run=life.run.number,
            name=summary.name,
            command=summary.command,
            executor=life.run.executor,
            cpu_percent=rate,
            memory_bytes=last.usage.memory_bytes if last else None,
            memory_limit_bytes=life.run.memory_bytes or None,
            processes=last.usage.processes if last else None,
            gpus=gpu_samples(life.run.gpus),
            duration_s=round(max(0.0, time.time() - self._began_at(life.run.number)), 3),
        )

    def _began_at(self, number: int) -> float:
        moments = [event.at for event in self._store.events(number) if event.state == State.RUNNING]
        return moments[-1] if moments else time.time()


def not_running(store: Store, number: int) -> Conflict:
    """The error for a run that is not running, with its state."""
    state = State(store.summary(number).state)
    return Conflict(f"Run {number} is not running: it is {spoken(state)}.", "See what runs with: spell ps -s running")
