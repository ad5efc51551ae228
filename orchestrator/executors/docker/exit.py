"""Finds out whether a container's first process is really dead, and why, when its reaper left no verdict.

A reaper holds a named pipe open while it lives. But it runs on a Python that a run may have replaced (by its image, or a
mount over `/usr/bin`), so it may close the pipe and go on. Nothing is saved before the kernel or the engine confirms that
it is dead: live processes could lead us anywhere by links in the work dir.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import time
from pathlib import Path

from orchestrator.engine import Engine, EngineError
from orchestrator.executors.base import Handle, Verdict
from orchestrator.executors.docker import files
from orchestrator.supervisor import identity

_log = logging.getLogger(__name__)
_DIES_S = 2.0  # after the end of the pipe, for a reaper that follows the rules
_LIMIT_S = 30.0
_KILL_LIMIT_S = 5.0
_LOOK_S, _ASK_S = 0.02, 0.5
_OVER = ("created", "exited")


def note_process(engine: Engine, container: str, folder: Path) -> None:
    """Record the first process of a container, so that the kernel can tell when it ends."""
    with contextlib.suppress(EngineError), engine.translated_errors():
        pid = int(engine.api.inspect_container(container)["State"]["Pid"])
        note = {"pid": pid, "start_time": identity.start_time(pid)}
        (folder / "process.json").write_text(json.dumps(note))


def await_death(engine: Engine, container: str, folder: Path) -> bool:
    """Wait for the end of the first process after its pipe has ended, and kill it if it takes too long.

    Returns:
        False when neither the kernel nor the engine confirms that it is dead.
    """
    if _await_process(folder, _DIES_S) or (not _is_noted(folder) and _await_engine(engine, container, _DIES_S)):
        return True
    _log.warning("container %s went on though its reaper had closed its pipe; it was killed", container)
    with contextlib.suppress(EngineError):
        kill(engine, container)
    return _await_process(folder, _LIMIT_S) or _await_engine(engine, container, _LIMIT_S)


def find_out(engine: Engine, handle: Handle) -> Verdict:
    """Ask the engine how an attempt ended whose reaper has left no result."""
    if handle.data["boot_id"] != identity.boot_id():
        return Verdict(reason="machine_restarted")
    deadline = time.monotonic() + _LIMIT_S
    while True:
        try:
            with engine.translated_errors():
                state = engine.api.inspect_container(handle.data["container"])["State"]
            if not state["Running"] and state["Status"] not in ("removing", "dead"):
                break
            problem = f"the engine reports its container as {state['Status']}"
        except EngineError as error:
            if error.status == 404:
                return Verdict(reason="container_lost", detail=str(handle.data["container"]))
            problem = error.message
        if time.monotonic() > deadline:
            return Verdict(reason="supervisor_lost", detail=f"the run's reaper is gone; {problem}")
        time.sleep(_ASK_S)
    if state.get("OOMKilled"):
        return Verdict(signal=9, reason="out_of_memory")
    words = f"its container was killed from outside (exit code {state.get('ExitCode')})"
    return Verdict(reason="supervisor_lost", detail=words)


def insist(engine: Engine, container: str, line: Path) -> None:
    """Kill a container whose reaper was signalled to end everything, and has not done so after some seconds."""
    with files.opened(line) as fd:
        if not files.await_end(fd, _KILL_LIMIT_S):
            with contextlib.suppress(EngineError):
                kill(engine, container)


def kill(engine: Engine, container: str) -> None:
    """KILL the first process, which ends all others too. No error when it is over.

    Raises:
        EngineError: when the engine cannot.
    """
    try:
        with engine.translated_errors():
            engine.api.kill(container, "SIGKILL")
    except EngineError as error:
        if error.status not in (404, 409):
            raise


def noted(folder: Path) -> tuple[int, str]:
    """Return pid and start time of the first process; the latter is "" where the process is not visible to us."""
    try:
        note = json.loads((folder / "process.json").read_bytes())
    except (FileNotFoundError, ValueError):  # spelld was killed at that moment
        return 0, ""
    return int(note["pid"]), str(note["start_time"])


def _is_noted(folder: Path) -> bool:
    return bool(noted(folder)[1])


def _await_process(folder: Path, limit_s: float) -> bool:
    """Whether the recorded process ends within the limit. False when none is recorded."""
    pid, start_time = noted(folder)
    if not start_time:
        return False
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if identity.start_time(pid) != start_time:
            return True  # another process has its pid
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(limit_s * 1000))
    finally:
        os.close(pidfd)


def _await_engine(engine: Engine, container: str, limit_s: float) -> bool:
    """Whether the engine reports within the limit that the container has ended, or does not exist."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            with engine.translated_errors():
                if engine.api.inspect_container(container)["State"]["Status"] in _OVER:
                    return True
        except EngineError as error:
            if error.status == 404:
                return True
        time.sleep(_LOOK_S)
    return False
