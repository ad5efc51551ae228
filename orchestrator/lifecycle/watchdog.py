"""Stops runs that meet their stop condition: on their metrics, or on doing nothing.

A run does something if its log or metrics grow, or if it uses more than a hundredth of a core, or one of its GPUs. If an
executor does not report the usage, the run counts as busy, so a run that works silently is never stopped.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

from orchestrator.errors import SpellError
from orchestrator.home import Home
from orchestrator.lifecycle.life import Life
from orchestrator.loops import Loop
from orchestrator.machine import gpu_samples
from orchestrator.spec.conditions import Watch
from orchestrator.store import Store
from orchestrator.telemetry.complaints import Complaints
from orchestrator.telemetry.metrics import ingest_metrics

_log = logging.getLogger(__name__)
_LOOK_S = 0.5
_FROM_MINUTES_S = 120.0
_IDLE_LOOKS = 10  # within the time after which a run counts as idle
_IDLE_CORES = 0.01
_VALUES_AT_ONCE = 10_000
_ANSWER_LIMIT_S = 10.0  # a slower answer of an executor counts as none


class Watchdog:
    """Looks at all runs with such conditions, twice a second.

    Args:
        lives: the runs that are led now.
        stop: called with number, end reason and detail to stop a run.
    """

    def __init__(
        self, store: Store, home: Home, lives: Callable[[], Sequence[Life]], stop: Callable[[int, str, str], object]
    ) -> None:
        self._store, self._home, self._lives, self._stop = store, home, lives, stop
        self._watched: dict[int, tuple[_Metrics | None, _Pulse | None]] = {}
        self._complaints = Complaints(_log, "run %d could not be watched")
        self._loop = Loop("watchdog", self._look_at_all, wait_s=lambda: _LOOK_S)
        self._loop.start()

    def close(self) -> None:
        """End."""
        self._loop.close()

    def _look_at_all(self) -> None:
        lives = {life.run.number: life for life in self._lives() if life.handle}
        self._watched = {number: self._watched.get(number) or self._begin(life) for number, life in lives.items()}
        self._complaints.forget_all_but(list(lives))
        for number, (metrics, pulse) in self._watched.items():
            with self._complaints.of(number):
                self._look(number, metrics, pulse)

    def _begin(self, life: Life) -> tuple[_Metrics | None, _Pulse | None]:
        try:
            spec = life.spec
        except SpellError:  # another version cast it
            return None, None
        metrics = (
            _Metrics(self._store, self._home, life.run.number, spec.stop_conditions) if spec.stop_conditions else None
        )
        pulse = _Pulse(life, self._home, spec.no_output_timeout_s) if spec.no_output_timeout_s else None
        return metrics, pulse

    def _look(self, number: int, metrics: _Metrics | None, pulse: _Pulse | None) -> None:
        if metrics and (words := metrics.look()):
            self._stop(number, "condition_met", words)
        elif pulse and (words := pulse.look()):
            self._stop(number, "idle", words)


class _Metrics:
    """The metrics of one run, against its stop conditions."""

    def __init__(self, store: Store, home: Home, number: int, conditions: Sequence[str]) -> None:
        self._store, self._home, self._number = store, home, number
        self._watch, self._seen = Watch(conditions), 0

        attempts = store.record(number).attempts
        self._since = (attempts[-1].ended_at or 0.0) if attempts else 0.0

    def look(self) -> str:
        """Return the condition that is met now; "" for none. Metrics of an earlier attempt do not count."""
        ingest_metrics(self._store, self._home, self._number)
        while found := self._store.metrics_after(self._number, self._seen, _VALUES_AT_ONCE):
            for position, record in found:
                self._seen = position
                if record.at < self._since:
                    continue
                if words := self._watch.met(record.name, record.step, record.value):
                    return words
        return ""


class _Pulse:
    """Measures for how long one run has done nothing."""

    def __init__(self, life: Life, home: Home, limit_s: float) -> None:
        self._life, self._limit_s = life, limit_s
        self._files = (home.log(life.run.number), home.metrics(life.run.number))
        self._size = -1
        self._last = self._next = time.monotonic()
        self._cpu: tuple[float, float] | None = None  # time and CPU seconds of the last reading
        self._asking = False
        self._idle_readings = 0  # since its last activity

    def look(self) -> str:
        """Return how long the run has done nothing, as a clause, if that is too long; else ""."""
        now, size = time.monotonic(), self._sizes()
        if size != self._size:
            self._size = size
            self._did_something(now)
        if now >= self._next and not self._asking:
            self._next = now + self._limit_s / _IDLE_LOOKS
            self._asking = True
            # in a separate thread: an executor that hangs must not block the watching of other runs
            threading.Thread(target=self._ask, name=f"pulse-{self._life.run.number}", daemon=True).start()
        if self._asking and now >= self._next + _ANSWER_LIMIT_S:
            self._did_something(now)  # unknown
        idle_s = now - self._last
        is_idle = idle_s >= self._limit_s and self._idle_readings > 0
        return f"it printed nothing and was idle for {_in_words(idle_s)}" if is_idle else ""

    def _did_something(self, moment: float) -> None:
        self._last, self._idle_readings = moment, 0

    def _sizes(self) -> int:
        total = 0
        for path in self._files:
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def _ask(self) -> None:
        try:
            usage = self._life.usage()
            now = time.monotonic()
            spent = usage.cpu_time_s if usage else None
            before, self._cpu = self._cpu, None if spent is None else (now, spent)
            idle = before is not None and spent is not None and spent - before[1] <= _IDLE_CORES * (now - before[0])
            busy_gpu = any(gpu.get("utilization_percent", 0) for gpu in gpu_samples(self._life.run.gpus))
            self._idle_readings += 1
            if not idle or busy_gpu:
                self._did_something(now)
        except Exception:  # no answer, for example because of too many open files
            self._did_something(time.monotonic())
        finally:
            self._asking = False


def _in_words(seconds: float) -> str:
    """Return a time as `3.5 s`, or from two minutes on as `2.5 minutes`."""
    return f"{seconds / 60:.3g} minutes" if seconds >= _FROM_MINUTES_S else f"{seconds:.3g} s"
