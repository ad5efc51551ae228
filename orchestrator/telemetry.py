"""What is gathered beside a run: its metrics, samples of what it uses, and the hashes of its artifacts."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from orchestrator import outputs
from orchestrator.errors import SpellError
from orchestrator.executors.base import Usage, Verdict
from orchestrator.home import Home
from orchestrator.machine import gpu_samples
from orchestrator.manifest import LINK
from orchestrator.records.files import ArtifactRecord
from orchestrator.records.runs import MetricRecord, SampleRecord
from orchestrator.sharing import Sharing
from orchestrator.store import Store
from orchestrator.store.blobs import sync_all

_log = logging.getLogger(__name__)
_METRICS_AT_ONCE_BYTES = 4 << 20
_METRICS_BYTES = 1 << 30  # what lies behind is not read: a run may make a file of terabytes out of nothing
_HASHES_AT_ONCE = 200
_ERROR_PAUSE_S = 5.0
_FEW = 10  # files; of more, all are written to the disk at once
_TRIES = 5  # to read a file, with this pause between them


def ingest_metrics(store: Store, home: Home, number: int) -> None:
    """Take new lines of a run's metrics file into the store. A malformed line is passed over."""
    path = home.metrics(number)
    offset = store.metrics_offset(number)
    while offset < _METRICS_BYTES and path.is_file():  # a run may have put anything there
        try:
            with path.open("rb") as file:
                file.seek(offset)
                block = file.read(_METRICS_AT_ONCE_BYTES)
        except OSError as error:  # it may have taken our right to read it, too
            _log.warning("the metrics of run %d cannot be read: %s", number, error)
            return
        whole = block[: block.rfind(b"\n") + 1]
        if not whole and len(block) == _METRICS_AT_ONCE_BYTES:
            whole = block  # longer than any line of ours: passed over like others that are malformed
        if not whole:
            return
        steps = store.last_steps(number)
        found = [record for line in whole.splitlines() if (record := _metric(number, line, steps))]
        store.add_metrics(number, found, offset, offset + len(whole))
        offset += len(whole)


def _metric(number: int, line: bytes, steps: dict[str, int]) -> MetricRecord | None:
    try:
        words = json.loads(line)
        name, value, at = str(words["name"]), float(words["value"]), float(words["at"])
        step = steps.get(name, -1) + 1 if words["step"] is None else int(words["step"])
        name.encode()
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    if not (math.isfinite(value) and math.isfinite(at) and abs(step) < 1 << 63):
        return None  # SQLite and JSON have no word for it
    steps[name] = step
    return MetricRecord(number, name, step, value, at)


def sample(store: Store, number: int, gpus: tuple[int, ...], usage: Usage) -> None:
    """Record what a run uses now."""
    record = SampleRecord(number, time.time(), usage.cpu_time_s, usage.memory_bytes, usage.processes, gpu_samples(gpus))
    store.add_sample(record)


def last_sample(number: int, verdict: Verdict) -> SampleRecord:
    """What a run has used in all, so that even the shortest has a sample."""
    return SampleRecord(number, verdict.ended_at or time.time(), verdict.cpu_time_s, verdict.max_rss_bytes, 0, [])


class Hasher:
    """Computes the hashes of artifacts in the background: no run waits for them. What has a hash is on the disk."""

    def __init__(self, store: Store, home: Home) -> None:
        self._store, self._home = store, home
        self._wake, self._closing = threading.Event(), threading.Event()
        self._sharing = Sharing(store, home, self._closing.is_set)
        self._failed: dict[tuple[int, str], int] = {}
        self._thread = threading.Thread(target=self._loop, name="hasher", daemon=True)
        self._thread.start()
        self.wake()

    def wake(self) -> None:
        """There may be new artifacts."""
        self._wake.set()

    def close(self) -> None:
        """Stop at once."""
        self._closing.set()
        self._wake.set()
        self._thread.join()

    def _loop(self) -> None:
        is_clear = False
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closing.is_set():
                return
            try:
                if not is_clear:
                    self._sharing.finish()
                    is_clear = True
                while self._hash_some() and not self._closing.is_set():
                    pass
            except Exception:  # a full disk, say: later is early enough
                _log.exception("artifacts could not be hashed")
                self._closing.wait(_ERROR_PAUSE_S)
                self._wake.set()

    def _hash_some(self) -> bool:
        todo = self._store.unhashed(_HASHES_AT_ONCE)
        found, latest = list[tuple[int, str, str]](), dict[tuple[str, str, int], ArtifactRecord]()
        is_one_by_one = len(todo) <= _FEW
        for item in todo:
            try:
                digest = self._digest(item, durably=is_one_by_one)
            except OSError:
                failed = self._failed[item.run, item.path] = self._failed.get((item.run, item.path), 0) + 1
                if failed < _TRIES:  # too many open files, say
                    self._record(found, is_durable=is_one_by_one)
                    raise
                digest = ""
            if digest is None:
                break
            if digest and item.mode != LINK:
                key = digest, item.mode, item.size
                # before its hash is recorded: who is killed in between does it again
                self._sharing.share(item, digest, [latest[key]] if key in latest else [])
                latest[key] = item
            found.append((item.run, item.path, digest))
        self._record(found, is_durable=is_one_by_one)
        return bool(todo)

    def _record(self, found: Sequence[tuple[int, str, str]], *, is_durable: bool) -> None:
        if found and not is_durable:
            sync_all(self._home.runs)
        self._store.set_hashes(found)

    def _digest(self, item: ArtifactRecord, *, durably: bool) -> str | None:
        """Its hash; "" when it is not what was recorded, or was removed by hand. None when we are to end."""
        path = self._home.run_dir(item.run) / outputs.actual(item.path)
        try:
            if os.lstat(path).st_size != item.size:
                _log.error("run %d: %s is not as big as when it was saved", item.run, item.path)
                return ""
            return outputs.sha256(path, self._closing.is_set, durably=durably)
        except (FileNotFoundError, NotADirectoryError):
            return ""


class Sampler:
    """Every few seconds: one sample of each running run, and its new metrics.

    Args:
        running: answers `(number, gpus, usage)` of the runs that run now; usage is asked of their executor.
    """

    def __init__(
        self,
        store: Store,
        home: Home,
        interval_s: float,
        running: Callable[[], list[tuple[int, tuple[int, ...], Callable[[], Usage | None]]]],
    ) -> None:
        self._store, self._home, self._interval_s, self._running = store, home, interval_s, running
        self._closing = threading.Event()
        self._asking: set[int] = set()
        self._complaints = Complaints(_log, "run %d could not be sampled")
        self._thread = threading.Thread(target=self._loop, name="sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop at once."""
        self._closing.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._closing.wait(self._interval_s):
            running = self._running()
            self._complaints.forget_all_but([number for number, _, _ in running])
            for number, _, _ in running:
                with self._complaints.of(number):
                    ingest_metrics(self._store, self._home, number)
            for number, gpus, ask in running:
                if number not in self._asking:  # else an earlier question hangs
                    self._asking.add(number)
                    name, args = f"sample-{number}", (number, gpus, ask)
                    # in a thread of its own: an executor that hangs must not hold up the others' samples
                    threading.Thread(target=self._sample, args=args, name=name, daemon=True).start()

    def _sample(self, number: int, gpus: tuple[int, ...], ask: Callable[[], Usage | None]) -> None:
        try:
            with self._complaints.of(number):
                usage = ask()
                if usage and not self._closing.is_set():
                    sample(self._store, number, gpus, usage)
        finally:
            self._asking.discard(number)


class Complaints:
    """Logs what fails again and again: an error of ours in one line, when its words change; others with their traceback.

    Args:
        words: what failed, with a `%d` for the number of the run.
    """

    def __init__(self, log: logging.Logger, words: str) -> None:
        self._log, self._words = log, words
        self._said: dict[int, str] = {}

    @contextlib.contextmanager
    def of(self, number: int) -> Iterator[None]:
        """What is done for this run; whatever it raises is logged, and goes no further."""
        try:
            yield
        except SpellError as error:
            if self._said.get(number) != error.message:
                self._said[number] = error.message
                self._log.warning("%s: %s", self._words % number, error.message)
        except Exception:
            self._log.exception(self._words, number)

    def forget_all_but(self, numbers: Collection[int]) -> None:
        """Only these runs may still fail."""
        self._said = {number: said for number, said in self._said.items() if number in numbers}
