"""Records what runs use, every few seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from orchestrator.executors.base import Usage, Verdict
from orchestrator.home import Home
from orchestrator.loops import Loop
from orchestrator.machine import gpu_samples
from orchestrator.records.runs import SampleRecord
from orchestrator.store import Store
from orchestrator.telemetry.complaints import Complaints
from orchestrator.telemetry.metrics import ingest_metrics

_log = logging.getLogger(__name__)


def sample(store: Store, number: int, gpus: tuple[int, ...], usage: Usage) -> None:
    """Record what a run uses now."""
    record = SampleRecord(number, time.time(), usage.cpu_time_s, usage.memory_bytes, usage.processes, gpu_samples(gpus))
    store.add_sample(record)


def last_sample(number: int, verdict: Verdict) -> SampleRecord:
    """Return a sample of the total usage of a run, so that even the shortest run has one."""
    return SampleRecord(number, verdict.ended_at or time.time(), verdict.cpu_time_s, verdict.max_rss_bytes, 0, [])


class Sampler:
    """Takes one sample, and the new metrics, of each running run every few seconds.

    Args:
        running: returns `(number, gpus, usage)` of the running runs; `usage` asks their executor.
    """

    def __init__(
        self,
        store: Store,
        home: Home,
        interval_s: float,
        running: Callable[[], list[tuple[int, tuple[int, ...], Callable[[], Usage | None]]]],
    ) -> None:
        self._store, self._home, self._running = store, home, running
        self._asking: set[int] = set()
        self._complaints = Complaints(_log, "run %d could not be sampled")
        self._loop = Loop("sampler", self._sample_all, wait_s=lambda: interval_s)
        self._loop.start()

    def close(self) -> None:
        """End."""
        self._loop.close()

    def _sample_all(self) -> None:
        running = self._running()
        self._complaints.forget_all_but([number for number, _, _ in running])
        for number, _, _ in running:
            with self._complaints.of(number):
                ingest_metrics(self._store, self._home, number)
        for number, gpus, ask in running:
            if number not in self._asking:  # else an earlier question hangs
                self._asking.add(number)
                name, args = f"sample-{number}", (number, gpus, ask)
                # in a separate thread: an executor that hangs must not delay the samples of other runs
                threading.Thread(target=self._sample, args=args, name=name, daemon=True).start()

    def _sample(self, number: int, gpus: tuple[int, ...], ask: Callable[[], Usage | None]) -> None:
        try:
            with self._complaints.of(number):
                usage = ask()
                if usage and not self._loop.is_closing():
                    sample(self._store, number, gpus, usage)
        finally:
            self._asking.discard(number)
