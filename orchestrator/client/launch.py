"""Starting the server of a home when none answers: one at a time, and detached from whoever needed it first."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.errors import DiskFull, HomeUnusable, InvalidConfig, ServerUnavailable
from orchestrator.home import Home, answers, check_room

_START_LIMIT_S = 60.0
_LOOK_S = 0.01
NOT_STARTED = "The server could not be started: "
_GOOD_BYE = "Application startup failed. Exiting."


def ensure_server(home: Home) -> None:
    """Start `spelld` for this home, unless one answers by now. Returns when it answers.

    Raises:
        HomeUnusable: when the home cannot be made or written to.
        DiskFull: when there is no room for what a server writes while it starts.
        InvalidConfig: when its configuration says something impossible.
        ServerUnavailable: when the server ends at once or does not answer; with its last words.
    """
    if os.environ.get("SPELL_RUN") and os.environ.get("SPELL_HOME") == str(home.root):
        # A server started here would end with the run.
        raise ServerUnavailable(
            "The server of this run's home is gone.", "Start it outside the run: spell server start"
        )
    home.create()
    try:
        with (home.store / "launch.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not answers(home.socket):
                _make_room(home)
                _start(home)
    except OSError as error:
        raise HomeUnusable(
            f"The home {home.root} cannot be used: {error.strerror or error}.",
            "Choose another one with SPELL_HOME=…, or mend its permissions.",
        ) from error


def _make_room(home: Home) -> None:
    try:
        check_room(home.store)
    except DiskFull:
        home.ballast.unlink(missing_ok=True)  # set aside for moments like this one
        check_room(home.store)


def _start(home: Home) -> None:
    said_before = home.server_log.stat().st_size if home.server_log.exists() else 0
    with home.server_log.open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.server", "--home", str(home.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + _START_LIMIT_S
    while not answers(home.socket):
        if server.poll() is not None or time.monotonic() > deadline:
            kind = InvalidConfig if server.returncode == InvalidConfig.exit_code else ServerUnavailable
            words = _last_words(home.server_log, said_before)
            raise kind(f"{NOT_STARTED}{words}", f"See {home.server_log}")
        time.sleep(_LOOK_S)


def _last_words(log: Path, start: int) -> str:
    """Why a server ended, in its own words: its last line, which is not the web server's own good-bye."""
    said = log.read_bytes()[start:].decode(errors="replace").splitlines()
    lines = [line.strip() for line in said if line.strip() and not line.endswith(_GOOD_BYE)]
    return lines[-1].removeprefix("ERROR: ") if lines else "it said nothing."
