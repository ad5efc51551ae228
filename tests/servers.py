"""Servers in the test's own process, where executor or machine must be the test's own; and other Python processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import kinds
import uvicorn
from conftest import wait_for

from orchestrator.client.client import Client
from orchestrator.errors import Conflict
from orchestrator.executors.base import Executor
from orchestrator.home import Home
from orchestrator.machine import Capacity
from orchestrator.server.app import make_app
from orchestrator.server.main import _alone, _listen
from orchestrator.states import FINAL


@contextlib.contextmanager
def serving(root: Path, found: Mapping[str, Executor], capacity: Capacity, config: str = "") -> Iterator[Client]:
    """A client of a server with these executors (the first is the default) on a machine that has `capacity`.

    Every run is ended, then the server.
    """
    kinds.allow("server")
    home = Home(root)
    home.create()
    home.config.write_text(f"executor = '{next(iter(found))}'\n{config}")
    server: uvicorn.Server

    def stop() -> None:
        server.should_exit = True

    app = make_app(home, stop, found, capacity)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=1)
    )
    with _alone(home), _listen(home) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_for(lambda: server.started, "the server")
            with Client(home, start=False) as client:
                yield client
                end_all(client)
        finally:
            stop()
            thread.join()


def end_all(client: Client) -> None:
    """Kill every run, and wait for its end."""
    active = [run.number for run in client.runs.list(limit=10_000) if run.state not in FINAL]
    for number in active:
        with contextlib.suppress(Conflict):  # it ended meanwhile
            client.runs.kill(str(number))
    for number in active:
        client.runs.wait(str(number), 30)


def python(code: str, *args: str) -> subprocess.Popen[str]:
    """A Python of this environment that runs `code`; its standard input and output are pipes."""
    command = [sys.executable, "-c", code, *args]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
