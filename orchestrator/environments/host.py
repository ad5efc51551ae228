"""Runs the programs of a build on this machine, each in a new process group, of which no process is left."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from orchestrator.environments.base import Runner
from orchestrator.environments.uv import BuildCancelled
from orchestrator.errors import BuildFailed

POLL_S = 0.05  # delay until a request to cancel is noticed
_GRACE_S = 1.0


class Host(Runner):
    """Runs the programs of a build on this machine."""

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        process_file: Path,
        output: Callable[[bytes], None],
        cancelled: Callable[[], bool],
    ) -> int:
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise BuildFailed(f"{command[0]} cannot be started: {error.strerror or error}.") from error
        try:
            note(process.pid, process_file)
            _follow(process, output, cancelled)
            return process.wait()
        finally:
            end_group(process)
            process_file.unlink(missing_ok=True)


def _follow(process: subprocess.Popen[bytes], output: Callable[[bytes], None], cancelled: Callable[[], bool]) -> None:
    assert process.stdout is not None
    with process.stdout as pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if cancelled():
                raise BuildCancelled
            ready = selector.select(POLL_S)
            chunk = os.read(pipe.fileno(), 1 << 16) if ready else b""
            if chunk:
                output(chunk)
            # A process that a build has left may hold the pipe open for ever.
            elif ready or process.poll() is not None:
                break


def note(pid: int, process_file: Path) -> None:
    """Name a process in a file, so that the next server ends it if this one is killed."""
    with suppress(psutil.Error):
        process_file.write_text(json.dumps({"pid": pid, "started": psutil.Process(pid).create_time()}))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started: by TERM, and by KILL after a second."""
    for sign, wait_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
            break
    with suppress(ProcessLookupError, PermissionError):  # those that outlived the leader
        os.killpg(process.pid, signal.SIGKILL)


def end_noted(noted: Mapping[str, Any]) -> None:
    """End the process group that a killed server left, if the file still names it and no other process."""
    with suppress(OSError, ValueError, KeyError, TypeError, psutil.Error):
        process = psutil.Process(int(noted["pid"]))
        if abs(process.create_time() - float(noted["started"])) <= 1:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(_GRACE_S)
