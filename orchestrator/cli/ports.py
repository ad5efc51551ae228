"""`spell port`: forwards ports of this machine to a run, or lists the ports that the run listens on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

import click

from orchestrator.cli.input import complete
from orchestrator.cli.output import show
from orchestrator.cli.output.detach import INTERRUPTED
from orchestrator.client.client import Client, connect
from orchestrator.client.ports import LOOPBACK, Forward
from orchestrator.errors import Conflict, SpellError, UsageError
from orchestrator.states import FINAL, spoken

_ENDED = 1


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("run", shell_complete=complete.active)
@click.argument("ports", metavar="[PORT[:LOCAL]]...", nargs=-1)
@click.option("--json", "json_", is_flag=True, help="Print the ports that it listens on as JSON.")
@click.pass_context
def port(ctx: click.Context, run: str, ports: Sequence[str], json_: bool) -> None:
    """Forward a port of this machine to each PORT of RUN, until the run ends or ^C is pressed. Without PORT, list the ports
    that it listens on.

    LOCAL is the port on this machine's loopback: by default the same number, 0 for any that is free. A run that does not
    listen yet is waited for.
    """
    wanted = [_pair(text) for text in ports]
    with connect() as client:
        if not wanted:
            _list(client, run, json_=json_)
            return
        try:
            with forwarded(client, run, wanted) as forwards:
                ctx.exit(_follow(client, forwards))
        except KeyboardInterrupt:
            show.say("\n✨ The ports are closed; the run goes on.", err=True)
            ctx.exit(INTERRUPTED)


@contextlib.contextmanager
def forwarded(client: Client, run: str, wanted: Sequence[tuple[int, int | None]]) -> Iterator[list[Forward]]:
    """Take ports of this machine for ports of a run, whose connections wait for `Forward.open`.

    Args:
        wanted: ports of the run and of this machine, as `client.ports.forward` takes them.
    """
    told: set[str] = set()

    def complain(error: SpellError) -> None:
        if error.message not in told:  # a browser tries again and again
            told.add(error.message)
            show.error(error.message)

    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(client.ports.forward(run, theirs, ours, complain)) for theirs, ours in wanted]


def _follow(client: Client, forwards: Sequence[Forward]) -> int:
    """Open the ports as the run listens on them, and wait for its end. Returns the exit code."""
    number = forwards[0].number
    if (state := client.runs.get(number).state) in FINAL:
        raise Conflict(
            f"Run {number} is not running: it is {spoken(state)}.", "See what runs with: spell ps -s running"
        )
    waits = [forward for forward in forwards if not _is_there(client, forward)]
    for forward in forwards:
        is_late = " as soon as it listens there" if forward in waits else ""
        show.say(f"✨ {LOOPBACK}:{forward.local} leads to port {forward.port} of run {number}{is_late}")
    show.say("✨ Close with ^C")
    for forward in [item for item in forwards if item not in waits]:
        forward.open()
    for forward in waits:
        if client.ports.wait(number, forward.port):
            forward.open()
            show.say(f"✨ Run {number} listens on port {forward.port} now")
    ended = client.runs.wait(number)
    show.say(f"✨ Run {number} has ended ({spoken(ended.state)}), so its ports are closed", err=True)
    return _ENDED if waits and not any(forward.is_open for forward in waits) else 0


def _is_there(client: Client, forward: Forward) -> bool:
    try:
        return any(item.port == forward.port for item in client.ports.list(forward.number))
    except Conflict:  # it is not running yet
        return False


def _list(client: Client, run: str, *, json_: bool) -> None:
    found = client.ports.list(run)
    if json_:
        show.as_json(found)
    elif not found:
        show.say(f"Run {run} listens on no port.")
    else:
        show.table(["PORT", "ADDRESS", "PROGRAM"], [[str(item.port), item.address, item.program] for item in found])


def _pair(text: str) -> tuple[int, int | None]:
    if not (found := re.fullmatch(r"([0-9]{1,5})(?::([0-9]{1,5}))?", text)):
        raise UsageError(f"{text!r} names no port.", "Write PORT or PORT:LOCAL, numbers both: spell port RUN 8888:9999")
    return int(found[1]), int(found[2]) if found[2] else None
