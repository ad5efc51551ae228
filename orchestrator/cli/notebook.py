"""`spell notebook`: JupyterLab as a run, on this terminal's loopback.

The run's Python gets JupyterLab beside the packages that the person asked for, in an environment of its own; it is also the Python
of the kernels. Jupyter takes a free port, and writes it with the token into a file that only the run's user reads, in the layer
of the run. So the token is in no log and no list of processes, and who may start a command in the run (`spell exec`) can come back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from orchestrator.cli.input import complete
from orchestrator.cli.input.durations import Duration
from orchestrator.cli.input.options import spec_options
from orchestrator.cli.input.spec import SpecOptions, build_spec
from orchestrator.cli.output import show
from orchestrator.cli.output.browser import browse
from orchestrator.cli.output.detach import INTERRUPTED, NOTHING_CAST, casting, interruptible
from orchestrator.cli.ports import forwarded
from orchestrator.cli.ready import ready
from orchestrator.cli.write_back import write_back
from orchestrator.client.client import Client, connect
from orchestrator.client.ports import LOOPBACK
from orchestrator.errors import Conflict, UsageError
from orchestrator.spec.run import RunSpec
from orchestrator.states import FINAL, KEEPS_OUTPUTS, State, spoken

USUAL_PORT = 8888
PACKAGES = ("jupyterlab>=4,<5",)
_MODULE = "jupyterlab"
_SERVER = "$VIRTUAL_ENV/notebook/jpserver-*.json"
_COMMAND = (
    'export JUPYTER_RUNTIME_DIR="$VIRTUAL_ENV/notebook" JUPYTER_TOKEN="$(python -c \'import secrets; print(secrets.token_hex(24))\')"; '
    f"exec python -m {_MODULE} --no-browser --allow-root --ServerApp.ip=127.0.0.1 --ServerApp.port=0 "
    '--ServerApp.base_url="/notebook/$SPELL_RUN/"'
)
_IDLE = (
    " --MappingKernelManager.cull_idle_timeout={0} --MappingKernelManager.cull_interval={1} "
    "--MappingKernelManager.cull_connected=True --ServerApp.shutdown_no_activity_timeout={0}"
)
_LOOK_S = 0.2


class _Jupyter(NamedTuple):
    """Where the Jupyter of a run answers: its port in the run, and the rest of its URL, with the token."""

    port: int
    rest: str


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("run", default="", shell_complete=complete.active)
@spec_options
@click.option("--port", type=click.IntRange(0, 65535), help="Port of this machine. [default: 8888, or a free one]")
@click.option("--open", "open_", is_flag=True, help="Open it in the browser.")
@click.option("--write-back", "back", is_flag=True, help="When it has ended, write changed notebooks into this folder.")
@click.option(
    "--idle-timeout",
    type=Duration("minutes"),
    metavar="TIME",
    help="End it when no cell has run for this long: 90m, 2h.",
)
@click.pass_context
def notebook(
    ctx: click.Context,
    /,
    *,
    run: str,
    port: int | None,
    open_: bool,
    back: bool,
    idle_timeout: float | None,
    **typed: Any,
) -> None:
    """Start JupyterLab as a run on the code of this folder, with the options of spell run, and forward it to this machine.
    With RUN, come back to one that runs.
    """
    given = [name for name, value in typed.items() if value not in (None, (), False)]
    if run and (given or idle_timeout):
        raise UsageError("Options of a run belong to a new one.", f"Come back with: spell notebook {run}")
    _refuse_taken(port)
    with connect() as client:
        number = _of_earlier(client, run) if run else _cast(client, SpecOptions.of(command=(), **typed), idle_timeout)
        try:
            ctx.exit(_attend(client, number, port, open_=open_, back=back))
        except KeyboardInterrupt:
            show.say(f"\n✨ Run {number} goes on. Come back with 'spell notebook {number}'.", err=True)
            show.say(f"✨ Use 'spell stop {number}' to end it; its notebooks are kept.", err=True)
            ctx.exit(INTERRUPTED)


def _of_earlier(client: Client, reference: str) -> int:
    run = client.runs.get(reference)
    if _MODULE not in run.spec["command"]:
        raise Conflict(f"Run {run.number} is no notebook.", "Forward a port of it: spell port RUN PORT")
    return run.number


def _cast(client: Client, options: SpecOptions, idle_timeout_s: float | None) -> int:
    command = _COMMAND
    if idle_timeout_s:
        command += _IDLE.format(int(idle_timeout_s), max(1, min(60, int(idle_timeout_s) // 4)))
    described = options.fields["description"] or "JupyterLab"
    fields: Mapping[str, Any] = {**options.fields, "command": (command,), "description": described}
    with interruptible(NOTHING_CAST):
        spec, code = build_spec(dataclasses.replace(options, fields=fields))
        spec = ready(client, spec, options)
        with casting("spell ps"):
            cast = client.runs.cast(with_jupyter(spec), code)
    for warning in cast.warnings:
        show.warn(warning)
    show.say(f"💫 Casting spell #{cast.number}…")
    return cast.number


def with_jupyter(spec: RunSpec) -> RunSpec:
    """The spec with JupyterLab among its packages, and without the copies that it keeps of notebooks."""
    return dataclasses.replace(spec, pip=(*spec.pip, *PACKAGES), ignore=(*spec.ignore, ".ipynb_checkpoints/"))


def _attend(client: Client, number: int, port: int | None, *, open_: bool, back: bool) -> int:
    """Forward to the Jupyter of a run, and wait for the run's end. Returns the exit code."""
    found = _await(client, number)
    if found is None:
        return _end(client, number, back=back)
    with forwarded(client, str(number), [(found.port, _local(port))]) as (forward,):
        forward.open()
        url = f"http://{LOOPBACK}:{forward.local}{found.rest}"
        show.say(f"✨ JupyterLab: {url}")
        show.say(
            f"✨ ^C leaves it running. Come back with 'spell notebook {number}', end it with 'spell stop {number}'."
        )
        with tempfile.TemporaryDirectory(prefix="spell-") as folder:
            if open_:
                browse(url, Path(folder))
            client.runs.wait(number)
    return _end(client, number, back=back)


def _await(client: Client, number: int) -> _Jupyter | None:
    """Wait until the Jupyter of a run answers. Returns None when the run has ended."""
    shown = ""
    while (state := client.runs.get(number).state) not in FINAL:
        if state != shown:
            shown = state
            show.say(f"✨ {spoken(State(state)).capitalize()}…")
        if state == State.RUNNING and (found := _found(client, number)):
            return found
        time.sleep(_LOOK_S)
    return None


def _found(client: Client, number: int) -> _Jupyter | None:
    """Read where the Jupyter of a run answers, from the file that it writes; None while there is none."""
    try:
        if not (ports := {item.port for item in client.ports.list(number)}):
            return None
        with client.exec.start(number, [f"cat {_SERVER}"]) as started:
            text = b"".join(output.data for output in started.read() if output.stream == 1)
        told = json.loads(text)
    except (Conflict, ValueError):  # it is just ending, or has not written the file yet
        return None
    if told["port"] not in ports:
        return None
    return _Jupyter(int(told["port"]), f"{told['base_url']}lab?token={told['token']}")


def _refuse_taken(port: int | None) -> None:
    """Refuse a port that is taken before a run is cast for it."""
    if port:
        try:
            socket.create_server((LOOPBACK, port)).close()
        except OSError as error:
            words = f"Port {port} of this machine cannot be taken: {error.strerror}."
            raise Conflict(words, "Take another one: --port NUMBER, or --port 0 for any that is free.") from error


def _local(port: int | None) -> int:
    """The port of this machine: the one that was typed, else the usual one if it is free, else any."""
    if port is None:
        with contextlib.suppress(OSError), socket.create_server((LOOPBACK, USUAL_PORT)):
            return USUAL_PORT
    return port or 0


def _end(client: Client, number: int, *, back: bool) -> int:
    run = client.runs.get(number)
    kept = f" See what it kept: spell ls runs/{number}" if run.state in KEEPS_OUTPUTS else ""
    see = "" if kept else f" See why: spell logs -v {number}"
    show.say(f"✨ Run {number} has ended ({spoken(State(run.state))}).{kept}{see}")
    if back and kept:
        write_back(client, run)
    return 0 if run.state in (State.COMPLETE, State.STOPPED) else 1
