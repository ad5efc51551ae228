"""Takes the metrics of a run from its file into the store."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Mapping

from orchestrator.home import Home
from orchestrator.records.metrics import MetricRecord
from orchestrator.runtime import LONGEST_NAME, MOST_STEP
from orchestrator.store import Store
from orchestrator.store.metrics import SENT

_log = logging.getLogger(__name__)
_METRICS_AT_ONCE_BYTES = 4 << 20
_METRICS_BYTES = 1 << 30  # the rest is not read: a run may make a file of terabytes by a hole


def ingest_metrics(store: Store, home: Home, number: int) -> None:
    """Take new lines of a run's metrics file into the store. Malformed lines are passed over: `lines_lost` counts them."""
    path = home.metrics(number)
    offset = store.metrics_offset(number)
    while offset < _METRICS_BYTES and path.is_file():  # a run may have put another kind of file there
        try:
            with path.open("rb") as file:
                file.seek(offset)
                block = file.read(_METRICS_AT_ONCE_BYTES)
        except OSError as error:  # a run may also have removed our permission
            _log.warning("the metrics of run %d cannot be read: %s", number, error)
            return
        whole = block[: block.rfind(b"\n") + 1]
        if not whole and len(block) == _METRICS_AT_ONCE_BYTES:
            whole = block  # longer than any line of ours, so it is ignored as malformed
        if not whole:
            return
        steps = store.last_steps(number)
        found = [record for line in whole.splitlines() if (record := _metric(number, line, steps))]
        renamed = store.add_metrics(number, found, offset, offset + len(whole))
        if renamed:
            _tell_renamed(store, number, renamed)
        offset += len(whole)


def _tell_renamed(store: Store, number: int, renamed: Mapping[str, str]) -> None:
    start = "Metrics that were sent by send_metric "
    if not any(event.kind == "notice" and event.text.startswith(start) for event in store.events(number)):
        name, place = next(iter(renamed.items()))
        words = f"have names that a tracker of this run uses, such as {name}: they are recorded as {place}"
        store.notice(number, f"{start}{words}")


def lines_lost(store: Store, home: Home, number: int) -> int:
    """Return how many lines of the metrics file of a run that has ended are no metrics."""
    path, lines, last, left = home.metrics(number), 0, b"", _METRICS_BYTES
    if not path.is_file():
        return 0
    with contextlib.suppress(OSError), path.open("rb") as file:
        while left > 0 and (block := file.read(_METRICS_AT_ONCE_BYTES)):
            lines, last, left = lines + block.count(b"\n"), block[-1:], left - len(block)
    sent = sum(summary.count for summary in store.metric_summaries(number, SENT))
    lines += last not in (b"", b"\n")
    return max(lines - sent, 0) if lines else 0


def _metric(number: int, line: bytes, steps: dict[str, int]) -> MetricRecord | None:
    try:
        words = json.loads(line)
        name, value, at = str(words["name"]), float(words["value"]), float(words["at"])
        step = steps.get(name, -1) + 1 if words["step"] is None else int(words["step"])
        name.encode()
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    if not (math.isfinite(value) and math.isfinite(at) and abs(step) <= MOST_STEP and 0 < len(name) <= LONGEST_NAME):
        return None  # SQLite and JSON cannot hold it, or a table show it; `send_metric` says so
    steps[name] = step
    return MetricRecord(number, name, step, value, at)
