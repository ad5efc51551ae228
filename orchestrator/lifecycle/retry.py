"""Decides whether, and when, a run whose attempt has failed is tried again."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.home import Home
from orchestrator.records import from_wire
from orchestrator.records.runs import AttemptRecord
from orchestrator.states import ENDS, State
from orchestrator.store import ClaimedRun, Store

_SAID = ("exited_nonzero", "signalled")  # end reasons for which the log may name the cause
_FACTS = ("started_at", "ended_at", "duration_s", "exit_code", "signal")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1, 60
_LAST_WORDS_BYTES = 16 << 10
_BEGINNING = "--- attempt {attempt} ---\n"
_BEGUN = re.compile(rb"^--- attempt \d+ ---$", re.MULTILINE)
_HOPELESS = {
    "it ran out of memory": re.compile(
        rb"OutOfMemoryError|out of memory|\bMemoryError\b|std::bad_alloc|can't allocate memory|Cannot allocate memory"
        rb"|CUBLAS_STATUS_ALLOC_FAILED",
        re.IGNORECASE,
    ),
    "its environment lacks something": re.compile(rb"^ModuleNotFoundError: ", re.MULTILINE),
}
"""Errors in a log that the next attempt would meet too."""


def failed(
    store: Store, home: Home, run: ClaimedRun, reason: str, detail: str, facts: Mapping[str, Any]
) -> tuple[AttemptRecord, float, str] | None:
    """Return the record of an attempt that has failed and will be tried again (see `Store.retry`); else None.

    Args:
        reason, detail: the end reason and its detail.
        facts: the columns that its verdict fills.
    """
    retries = int(run.spec.get("retries", 0))
    is_over = run.state in (State.SAVING, State.PUSHING)
    if is_over or not ENDS[reason].retryable or not retries:
        return None
    count = store.attempts.count(run.number)
    if count >= retries:
        return None
    if reason in _SAID and (why := hopeless(home.log(run.number))):
        store.notice(run.number, f"Not tried again, because by its log {why}")
        return None
    words = ENDS[reason].words(facts.get("exit_code"), facts.get("signal"), detail)
    ours = {name: facts.get(name) for name in _FACTS}
    text = f"Attempt {run.attempt} failed: {words}; trying again ({count + 1} of {retries})"
    record = from_wire(AttemptRecord, ours | {"number": run.attempt, "reason": reason, "message": words})
    return record, time.time() + pause_s(count + 1), text


def pause_s(failed: int) -> int:
    """Return the pause before the next attempt, in seconds, after this number of failures: 1, 2, 4 … 60."""
    return int(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S << min(failed - 1, 10)))


def hopeless(log: Path) -> str:
    """Return why a retry cannot help, by the end of the failed attempt's log; "" when it may help.

    Args:
        log: the log of the run.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            words = _BEGUN.split(file.read())[-1]
    except FileNotFoundError:
        return ""
    return next((why for why, pattern in _HOPELESS.items() if pattern.search(words)), "")


def begin(log: Path, attempt: int) -> None:
    """Mark in a run's log that another attempt begins here. Raises OSError."""
    with log.open("ab+") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        text = _BEGINNING.format(attempt=attempt)
        file.write((text if file.read() in (b"", b"\n") else f"\n{text}").encode())
