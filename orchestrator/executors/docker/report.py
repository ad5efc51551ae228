"""Waits for the first report of a container's reaper: that the command has started, or why not."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.engine import Engine, EngineError
from orchestrator.environments import BuildCancelled
from orchestrator.errors import Conflict, ExecutorFailed
from orchestrator.executors.base import Launch
from orchestrator.executors.docker import files
from orchestrator.executors.verdict import phase_error

_LOOK_S = 0.5  # between questions to the engine about a container whose reaper writes nothing
_START_LIMIT_S = 120.0  # until a reaper writes its first report


def await_reaper(engine: Engine, line: int, container: str, launch: Launch, cancelled: Callable[[], bool]) -> None:
    """Wait until the reaper reports or is gone.

    Raises:
        ExecutorFailed: it did not start, or not in time.
        BuildCancelled: when cancelled.
    """
    deadline = time.monotonic() + _START_LIMIT_S
    while not files.has_word(line, _LOOK_S):
        if cancelled():
            raise BuildCancelled("the run was stopped before its reaper had started")
        with engine.translated_errors():
            state = engine.api.inspect_container(container)["State"]
        if not state["Running"] and not files.has_word(line, 0):
            raise ExecutorFailed(f"the run's reaper did not start: {_last_words(engine, container, launch.folder)}")
        if time.monotonic() > deadline:
            raise ExecutorFailed(f"the run's reaper did not start within {_START_LIMIT_S:g} s")


def read_word(engine: Engine, line: int, container: str, launch: Launch) -> None:
    """Read the first report of the reaper.

    Raises:
        PhaseFailed: it could not start the command, or ended without a report.
        Conflict: another server took the attempt.
    """
    if not files.has_word(line, _START_LIMIT_S):
        raise ExecutorFailed(f"the run's reaper reported nothing within {_START_LIMIT_S:g} s")
    said = os.read(line, 65536).splitlines()
    if not said:
        raise ExecutorFailed(f"the run's reaper was killed: {_last_words(engine, container, launch.folder)}")
    try:
        words = dict(json.loads(said[0]))
        error = dict(words.get("error") or {})
    except (ValueError, TypeError, RecursionError):
        raise ExecutorFailed(f"the run's reaper sent something other than a report: {said[0][:80]!r}") from None
    if error:
        raise phase_error(error)
    if "taken" in words:
        engine.remove(container)  # in case it does not end by itself
        raise Conflict(f"Attempt {launch.attempt} of run {launch.number} was taken by another server.")


def _last_words(engine: Engine, container: str, folder: Path) -> str:
    said = files.read_end(folder / "errors")
    if not said:
        with contextlib.suppress(EngineError), engine.translated_errors():
            said = engine.api.logs(container, tail=5).decode(errors="replace")
    return said.strip().rpartition("\n")[2] or "it wrote no error"
