"""Starts, stops and shows the server, and lists machine types: server, machine-types."""

from __future__ import annotations

import sys
import time
from collections import deque

import click

from orchestrator.cli.output import show
from orchestrator.client.client import connect
from orchestrator.client.launch import ensure_server
from orchestrator.errors import ServerUnavailable
from orchestrator.home import Home, default_home, is_served
from orchestrator.records import API_VERSION

_HELP = {"help_option_names": ["-h", "--help"]}
_STOP_LIMIT_S = 15.0
_LOOK_S = 0.02


@click.group(context_settings=_HELP)
def server() -> None:
    """Start, stop and show the server of this home. The first command that needs the server starts it."""


@server.command(context_settings=_HELP)
def start() -> None:
    """Start the server if it does not run."""
    ensure_server(Home(default_home()))
    _say_status()


@server.command(context_settings=_HELP)
def stop() -> None:
    """Stop the server. Active runs go on, and the next server finds them again."""
    home = Home(default_home())
    with connect(home, start=False) as client:
        client.server.stop()
    deadline = time.monotonic() + _STOP_LIMIT_S
    while is_served(home):
        if time.monotonic() > deadline:
            raise ServerUnavailable("The server has not ended yet.", f"See {home.server_log}")
        time.sleep(_LOOK_S)
    show.say("The server has ended.")


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
