"""Starting the server of a home when none answers: one at a time, and detached from whoever needed it first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.errors import HomeUnusable, ServerUnavailable
from orchestrator.home import Home

_START_LIMIT_S = 30.0
_LOOK_S = 0.01


def ensure_server(home: Home) -> None:
    """Start `spelld` for this home, unless one answers by now. Returns when it answers.

    Raises:
        HomeUnusable: when the home cannot be made.
        ServerUnavailable: when it ends at once or does not answer; with its last words.
    """
    if os.environ.get("SPELL_RUN") and os.environ.get("SPELL_HOME") == str(home.root):
        # A server started here would end with the run.
        raise ServerUnavailable(
            "The server of this run's home is gone.", "Start it outside the run: spell server start"
        )
    home.create()
    try:
        lock = (home.store / "launch.lock").open("w")
    except OSError as error:
        raise HomeUnusable(f"The home {home.root} cannot be used: {error.strerror}.") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(home.socket):
            _start(home)


def _start(home: Home) -> None:
    said_before = home.server_log.stat().st_size if home.server_log.exists() else 0
    with home.server_log.open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.server.main", "--home", str(home.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + _START_LIMIT_S
    while not _answers(home.socket):
        if server.poll() is not None or time.monotonic() > deadline:
            raise ServerUnavailable(
                f"The server could not be started: {_last_words(home.server_log, said_before)}",
                f"See {home.server_log}",
            )
        time.sleep(_LOOK_S)


def _answers(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _last_words(log: Path, start: int) -> str:
    lines = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("ERROR: ") if lines else "it said nothing."
