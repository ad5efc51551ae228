"""Shows the log of a run, follows it, and searches in it."""

from __future__ import annotations

import sys
from typing import NamedTuple

import click

from orchestrator.cli.input import complete
from orchestrator.cli.input.durations import since
from orchestrator.cli.output import show
from orchestrator.cli.output.console import Console, exit_code
from orchestrator.cli.output.detach import BROKEN_PIPE, INTERRUPTED, detached, going_on
from orchestrator.cli.output.sieve import Sieve
from orchestrator.cli.output.streams import close_stdout
from orchestrator.cli.output.timestamps import Stamper, stamp
from orchestrator.client.client import Client, connect
from orchestrator.client.logs import Log
from orchestrator.content.log_pattern import LogPattern
from orchestrator.errors import InvalidConfig
from orchestrator.records.logs import MAX_AROUND, MAX_LAST, LogLine
from orchestrator.records.position import Position
from orchestrator.records.runs import RunRecord
from orchestrator.states import ACTIVE

_NOTHING_FOUND = 1  # as grep


class _Search(NamedTuple):
    """What is looked for, as it was typed."""

    text: str
    last: int | None
    around: int
    since: float | None
    times: bool


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="--search takes a text, or a regular expression between slashes: /loss=\\d+/, or /nan/i for upper and lower case.",
)
@click.argument("run", shell_complete=complete.runs)
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the run has ended.")
@click.option("-n", "lines", type=click.IntRange(0, 1_000_000_000), metavar="N", help="Show only the last N lines.")
@click.option("-s", "--search", "text", metavar="TEXT", help="Show only lines with this TEXT, or /EXPRESSION/.")
@click.option(
    "-C",
    "--context",
    "around",
    type=click.IntRange(0, MAX_AROUND),
    default=0,
    metavar="N",
    help="And N lines around each.",
)
@click.option(
    "--since", "written_since", metavar="TIME", help="Show only what it wrote since: 10m (ago), 2h, 2026-11-01T14:30"
)
@click.option("-t", "--timestamps", is_flag=True, help="Show the time of each line (UTC).")
@click.option("-v", "--verbose", is_flag=True, help="Show all states and their logs.")
@click.pass_context
def logs(
    ctx: click.Context,
    run: str,
    follow: bool,
    lines: int | None,
    text: str | None,
    around: int,
    written_since: str | None,
    timestamps: bool,
    verbose: bool,
) -> None:
    """Show the log of RUN. The output of its command goes to stdout byte for byte, everything else to stderr."""
    moment = since(written_since) if written_since else None
    if around and text is None:
        raise InvalidConfig(
            "Option --context shows lines around those that --search finds.", "Give --search TEXT, too."
        )
    with connect() as client:
        found = client.runs.get(run)
        number = str(found.number)
        console = Console(verbose=verbose, status_to_stderr=True)
        over = found.state not in ACTIVE
        if text is not None:
            search = _Search(text, lines, around, moment, timestamps)
            ctx.exit(_search(client, console, found, search, follow=follow))
        if timestamps:
            console.stamp = Stamper(client.logs, found)
        is_part = lines is not None or moment is not None
        if verbose and over and not is_part:
            console.end(console.follow(client.runs.follow(number)))
            return
        position = Position.START
        if is_part or not follow:
            position = _show(console, client.logs.get(number, lines, since=moment))
        if follow:
            ctx.exit(_follow(client, console, number, position))
        elif over:
            console.end(found)


def _show(console: Console, log: Log) -> Position:
    if isinstance(console.stamp, Stamper):
        console.stamp.begin(log.start)
    for chunk in log.chunks:
        console.log(chunk)
    return Position(log=log.end)


def _follow(client: Client, console: Console, number: str, position: Position, sieve: Sieve | None = None) -> int:
    try:
        with going_on(number):
            ended = console.follow(client.runs.follow(number, position))
        if sieve:
            console.raw(sieve.end())
    except KeyboardInterrupt:
        click.echo(err=True)
        detached(number, err=True)
        return INTERRUPTED
    except BrokenPipeError:  # `spell logs -f 1 | head`: the reader has closed the pipe
        close_stdout()
        return BROKEN_PIPE
    console.end(ended)
    return exit_code(ended)


def _search(client: Client, console: Console, run: RunRecord, wanted: _Search, *, follow: bool) -> int:
    """Print what is found, and with `follow` what comes. Returns the exit code: as that of grep, or of `logs -f`."""
    if wanted.last is not None and wanted.last > MAX_LAST:
        raise InvalidConfig(f"With --search, -n takes at most {MAX_LAST}.", "Leave it out for all lines.")
    number = str(run.number)
    found = client.logs.search(number, **wanted._asdict())
    is_any, end = False, None
    for line in found.lines:
        if wanted.around and end is not None and line.offset > end + 2:
            sys.stdout.buffer.write(b"--\n")
        sys.stdout.buffer.write(_shown(line, with_number=not follow))
        is_any, end = True, line.offset + line.size
    sys.stdout.buffer.flush()
    if follow and run.state in ACTIVE:
        clock = Stamper(client.logs, run) if wanted.times else None
        console.stamp = sieve = Sieve(LogPattern(wanted.text), wanted.around, found.end, clock)
        return _follow(client, console, number, Position(log=found.end), sieve)
    if follow:
        console.end(run)
        return exit_code(run)
    if not is_any:
        show.say(f"No line of the log of run {number} has it.", err=True)
        return _NOTHING_FOUND
    return 0


def _shown(line: LogLine, *, with_number: bool) -> bytes:
    time = b"" if line.at is None else stamp(line.at)
    number = f"{line.line}{':' if line.is_hit else '-'}" if with_number else ""
    return time + f"{number}{line.text}\n".encode()
