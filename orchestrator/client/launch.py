"""Starts the server of a home if none answers: once, and detached from the process that starts it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import DiskFull, InvalidConfig, ServerUnavailable
from orchestrator.home import Home, answers, check_room, open_lock, set_aside

_START_LIMIT_S = 60.0
_LOOK_S = 0.01
NOT_STARTED = "The server could not be started: "
_TRIES = 3
_LAST_OF_UVICORN = "Application startup failed. Exiting."


def ensure_server(home: Home, *, must_exist: bool = False) -> None:
    """Start `spelld` for this home unless one answers, and wait until it answers.

    Args:
        must_exist: refuse to make a new home.

    Raises:
        HomeUnusable: if the home cannot be made or written to.
        DiskFull: if the disk has no room for the files that a server writes while it starts.
        InvalidConfig: if its configuration is invalid.
        ServerUnavailable: if the server ends at once or does not answer; the message has the last line of its log.
    """
    if os.environ.get("SPELL_RUN") and os.environ.get("SPELL_HOME") == str(home.root):
        # A server started here would end with the run.
        raise ServerUnavailable(
            "The server of this run's home does not answer.", "Start it outside the run: spell server start"
        )
    if must_exist:
        home.check_is_there()
    home.create()
    try:
        with launching(home):
            if not answers(home.socket):
                _make_room(home)
                _start(home)
    except OSError as error:
        raise home.unusable(error) from error


@contextlib.contextmanager
def launching(home: Home) -> Iterator[None]:
    """Start or stop the server inside this: one process at a time does, and the others wait.

    Raises:
        OSError: if the home cannot be written to, or there is none.
    """
    with os.fdopen(open_lock(home.launch_lock)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_room(home: Home) -> None:
    kept = [home.ballast, home.reserve]
    while True:
        try:
            check_room(home.store)
        except DiskFull:
            if not kept:
                raise
            kept.pop(0).unlink(missing_ok=True)
        else:
            return


def _start(home: Home) -> None:
    for left in reversed(range(_TRIES)):
        server, log_start = _spawn(home)
        deadline = time.monotonic() + _START_LIMIT_S
        while not answers(home.socket):
            if server.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(_LOOK_S)
        else:
            return
        if not left or server.returncode is None or server.returncode > 0:  # else it was ended from outside
            kind = InvalidConfig if server.returncode == InvalidConfig.exit_code else ServerUnavailable
            raise kind(f"{NOT_STARTED}{_last_line(home.server_log, log_start)}", f"See {home.server_log}")


def _spawn(home: Home) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server. Returns its process, and where its words begin in the log."""
    set_aside(home.server_log)
    with os.fdopen(os.open(home.server_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as log:
        log_start = log.tell()
        server = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.server", "--home", str(home.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    return server, log_start


def _last_line(log: Path, start: int) -> str:
    """Return why a server ended: the last line of its log, except uvicorn's own last message."""
    written = log.read_bytes()[start:].decode(errors="replace").splitlines()
    lines = [line.strip() for line in written if line.strip() and not line.endswith(_LAST_OF_UVICORN)]
    return lines[-1].removeprefix("ERROR: ") if lines else "it wrote nothing to its log."
