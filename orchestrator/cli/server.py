"""Starts, stops and shows the server, and lists machine types: server, machine-types."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque

import click

from orchestrator.cli.input.hints import Group
from orchestrator.cli.output import show
from orchestrator.cli.output.detach import interruptible
from orchestrator.client.client import connect
from orchestrator.client.launch import ensure_server, launching
from orchestrator.errors import ServerUnavailable
from orchestrator.home import Home, answers, default_home, is_served
from orchestrator.records import API_VERSION

_HELP = {"help_option_names": ["-h", "--help"]}
_STOP_LIMIT_S = 15.0
_LOOK_S = 0.02
_SEE = "See what became of it: spell server status"


@click.group(cls=Group, context_settings=_HELP)
def server() -> None:
    """Start, stop and show the server of this home. The first command that needs the server starts it."""


@server.command(context_settings=_HELP)
def start() -> None:
    """Start the server if it does not run."""
    with interruptible(_SEE):
        ensure_server(Home(default_home()))
    _say_status()


@server.command(context_settings=_HELP)
def stop() -> None:
    """Stop the server. Active runs go on, and the next server finds them again."""
    home = Home(default_home())
    with interruptible(_SEE), contextlib.ExitStack() as turn:
        with contextlib.suppress(OSError):  # no home, or that of another person: the request says so
            turn.enter_context(launching(home))  # a server that is being started is stopped when it has started
        _end(home)
    show.say("The server has ended.")


def _end(home: Home) -> None:
    """Ask the server to end, and wait until it has. One that is starting can be asked only when it answers."""
    deadline = time.monotonic() + _STOP_LIMIT_S
    was_served = os.access(home.lock, os.R_OK) and is_served(home)  # not that of another person
    while was_served and is_served(home) and not answers(home.socket) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    try:
        with connect(home, start=False) as client:
            client.server.stop()
    except ServerUnavailable:
        if not was_served:
            raise  # else it was ending already
    while is_served(home):
        if time.monotonic() > deadline:
            raise ServerUnavailable("The server has not ended yet.", f"See {home.server_log}")
        time.sleep(_LOOK_S)


@server.command(context_settings=_HELP)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def status(json_: bool) -> None:
    """Show which server answers. The exit code is 1 if none does."""
    _say_status(json_=json_)


def _say_status(*, json_: bool = False) -> None:
    with connect(start=False) as client:
        found = client.server.get()
    if json_:
        show.as_json(found)
        return
    show.say(f"spelld {found.version} (process {found.pid}) serves {found.home} since {show.clock(found.started_at)}.")
    show.say(f"Executors: {', '.join(found.executors)}. Active runs: {found.active_runs}.")
    if found.config_changed:
        show.say("config.toml was changed since then, and is not used yet. To use it: spell server stop", err=True)
    if found.api != API_VERSION:
        words = f"This server speaks version {found.api} of the API, this spell {API_VERSION}."
        show.say(f"{words} To replace it: spell server stop", err=True)


@server.command(context_settings=_HELP)
@click.option(
    "-n", "lines", type=click.IntRange(0, 1_000_000_000), default=50, show_default=True, help="Show the last N lines."
)
def logs(lines: int) -> None:
    """Show the log of the server."""
    try:
        with Home(default_home()).server_log.open("r", errors="replace") as file:
            sys.stdout.writelines(deque(file, maxlen=lines))
    except FileNotFoundError:
        show.say("The server has no log yet.", err=True)


@click.command("machine-types", context_settings=_HELP)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def machine_types(json_: bool) -> None:
    """List machine types for spell run -t, and how many runs of each could start now."""
    with connect() as client:
        found = client.machines.list()
    if json_:
        show.as_json(found)
        return
    rows = [
        [
            item.name,
            f"{item.cpus:g}",
            show.size(item.memory_bytes) if item.memory_bytes else "-",
            str(item.gpus or "-"),
            str(item.free_now) if item.possible else "never here",
        ]
        for item in found
    ]
    show.table(["NAME", "CPUS", "MEMORY", "GPUS", "FREE NOW"], rows)
