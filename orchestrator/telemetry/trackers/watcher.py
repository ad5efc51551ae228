"""Reads the files of trackers of all running runs, once a second, in a part of that second."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from orchestrator.errors import DiskFull, StoreBusy
from orchestrator.home import Home
from orchestrator.loops import Loop
from orchestrator.store import Store
from orchestrator.telemetry.complaints import Complaints
from orchestrator.telemetry.metrics import ingest_metrics
from orchestrator.telemetry.trackers.tracked import TrackedFiles

_log = logging.getLogger(__name__)
_WAIT_S = 1.0
_PASS_S = 0.3


class TrackerWatcher:
    """Records what running runs log by trackers.

    Args:
        running: returns number and attempt of the runs whose command is running.
    """

    def __init__(self, store: Store, home: Home, running: Callable[[], Sequence[tuple[int, int]]]) -> None:
        self._store, self._home, self._running = store, home, running
        self._tracked: dict[tuple[int, int], TrackedFiles] = {}
        self._last = (0, 0)
        self._complaints = Complaints(_log, "the files of trackers of run %d could not be read")
        self._loop = Loop("trackers", self._read_all, wait_s=lambda: _WAIT_S)
        self._loop.start()

    def close(self) -> None:
        """End."""
        self._loop.close()

    def _read_all(self) -> None:
        running = self._running()
        self._complaints.forget_all_but([number for number, _ in running])
        self._tracked = {key: files for key, files in self._tracked.items() if key in running}
        until = time.monotonic() + _PASS_S
        order = sorted(running, key=lambda key: (key <= self._last, key))  # those that had no time last come first
        for key in order:
            if self._loop.is_closing() or time.monotonic() >= until:
                return
            self._last = key
            with self._complaints.of(key[0]):
                self._read(key, until)

    def _read(self, key: tuple[int, int], until: float) -> None:
        if key not in self._tracked:
            if not self._home.begun(*key).exists():  # a server of an older version started it
                return
            self._tracked[key] = TrackedFiles(self._store, self._home, *key)
        self._tracked[key].read(until)


def take_rest(store: Store, home: Home, number: int, attempt: int) -> None:
    """Record all that a run whose command has ended has sent, and logged by trackers, to the last value.

    Raises:
        DiskFull, StoreBusy: try again.
    """
    ingest_metrics(store, home, number)
    try:
        if home.begun(number, attempt).exists():  # else a server of an older version started it
            TrackedFiles(store, home, number, attempt).finish()
    except (DiskFull, StoreBusy):  # the caller tries again
        raise
    except Exception:  # no file may fail a run: it is an output all the same
        _log.exception("the files of trackers of run %d could not be read to their end", number)
