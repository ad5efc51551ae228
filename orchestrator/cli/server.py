"""The server and the machine: server start|stop|status|logs, machine-types."""

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

_HELP = {"help_option_names": ["-h", "--help"]}
_STOP_LIMIT_S = 15.0
_LOOK_S = 0.02


@click.group(context_settings=_HELP)
def server() -> None:
    """The server of this home. The first command that needs it starts it by itself."""


@server.command(context_settings=_HELP)
def start() -> None:
    """Start the server, unless it runs."""
    ensure_server(Home(default_home()))
    _say_status()


@server.command(context_settings=_HELP)
def stop() -> None:
    """End the server. Active runs go on, and the next server finds them again."""
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
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def status(json_: bool) -> None:
    """Say which server answers. Exit code 1 when none does."""
    _say_status(json_=json_)


def _say_status(*, json_: bool = False) -> None:
    with connect(start=False) as client:
        found = client.server.get()
    if json_:
        show.as_json(found)
        return
    show.say(f"spelld {found.version} (process {found.pid}) serves {found.home} since {show.clock(found.started_at)}.")
    show.say(f"Executors: {', '.join(found.executors)}. Active runs: {found.active_runs}.")


@server.command(context_settings=_HELP)
@click.option("-n", "lines", type=click.IntRange(min=0), default=50, show_default=True, help="The last N lines.")
def logs(lines: int) -> None:
    """Show the server's own log."""
    try:
        with Home(default_home()).server_log.open("r", errors="replace") as file:
            sys.stdout.writelines(deque(file, maxlen=lines))
    except FileNotFoundError:
        show.say("There is no log yet.", err=True)


@click.command("machine-types", context_settings=_HELP)
@click.option("--json", "json_", is_flag=True, help="As JSON.")
def machine_types(json_: bool) -> None:
    """List what runs can ask for with -t, and how many of each would start now."""
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
