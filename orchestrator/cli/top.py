"""`spell top`: shows all active runs on one screen, and keeps it current."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from dataclasses import dataclass

import click

from orchestrator.cli.input.durations import Duration
from orchestrator.cli.output import show
from orchestrator.cli.stats import gpus
from orchestrator.client.client import Client, connect
from orchestrator.errors import SpellError
from orchestrator.records.run_summary import RunSummary
from orchestrator.records.runs import StatRecord
from orchestrator.spec.filters import Filter
from orchestrator.states import ACTIVE, State

_MOST_RUNS = 1000
_TAIL_BYTES = 4096
_METRIC_WIDTH = 12  # so that the value stays beside it
HEADERS = ["ID", "NAME", "STATUS", "MACHINE", "TIME", "CPU", "MEMORY", "GPU", "METRIC", "LAST LINE"]


@dataclass(frozen=True, slots=True)
class TopRow:
    """An active run, as `spell top --json` prints it.

    Attributes:
        run: its summary.
        stats: its current use; None if it is not running.
        metric, value: its first metric by name, and the last value of that.
        line: the last line of its log.
    """

    run: RunSummary
    stats: StatRecord | None
    metric: str
    value: float | None
    line: str


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--interval",
    "interval_s",
    type=Duration("seconds", 0.1, 3600),
    default=2.0,
    show_default=True,
    metavar="TIME",
    help="Time between two samples.",
)
@click.option("--json", "json_", is_flag=True, help="Print one sample as JSON.")
def top(interval_s: float, json_: bool) -> None:
    """Watch all active runs: running ones first, then waiting ones. Quit with q or ^C; the runs go on.

    Without a terminal, spell lists them once."""
    with connect() as client:
        if json_:
            show.as_json(look(client, _MOST_RUNS))
        elif not (sys.stdout.isatty() and sys.stdin.isatty()) or show.is_dumb():
            rows = look(client, _MOST_RUNS)
            if rows:
                show.table(HEADERS, [cells(row) for row in rows])
            else:
                show.say("No run is active.")
        else:
            _live(client, interval_s)


def _live(client: Client, interval_s: float) -> None:
    from orchestrator.cli.output.top_live import Screen  # 24 ms: rich, needed only on a terminal

    screen = Screen(HEADERS)
    with contextlib.suppress(KeyboardInterrupt), _keys(), screen:
        while True:
            found, total = _looked(client, screen.room)
            running = sum(row.stats is not None for row in found)
            screen.show([cells(row) for row in found], f"{total} active, {running} running. q quits.")
            if _pressed_q(interval_s):
                return


def _looked(client: Client, room: int) -> tuple[list[TopRow], int]:
    runs = _active(client)
    return _rows(client, runs[:room]), len(runs)


def look(client: Client, limit: int) -> list[TopRow]:
    """Return at most `limit` active runs with their current values, running ones first."""
    return _rows(client, _active(client)[:limit])


def _active(client: Client) -> list[RunSummary]:
    found = client.runs.list(Filter(states=sorted(ACTIVE)), limit=_MOST_RUNS)
    return sorted(found, key=lambda run: (run.state == State.MACHINE_REQUESTED, run.number))


def _rows(client: Client, runs: list[RunSummary]) -> list[TopRow]:
    stats = {item.run: item for item in client.stats.list()} if runs else {}
    found = []
    for run in runs:
        metric, value, line = "", None, ""
        if run.state != State.MACHINE_REQUESTED:
            with contextlib.suppress(SpellError):
                if sent := client.metrics.summaries(str(run.number)):
                    metric, value = sent[0].name, sent[0].last
                line = _last_line(client, run.number)
        found.append(TopRow(run, stats.get(run.number), metric, value, line))
    return found


def _last_line(client: Client, number: int) -> str:
    data = client.logs.get(str(number), 1, _TAIL_BYTES).read()
    text = show.without_ansi(data.decode("utf-8", "replace")).rstrip("\r\n")
    return text.rpartition("\r")[2]


def cells(row: TopRow) -> list[str]:
    """Return the cells of one run."""
    run, used = row.run, row.stats
    return [
        str(run.number),
        run.name or show.cut(run.command, 24),
        show.state(run.state, run.exit_code, run.signal, run.wish),
        run.machine_type,
        show.duration(round(used.duration_s)) if used else "-",
        "-" if used is None or used.cpu_percent is None else f"{used.cpu_percent:.0f}%",
        "-" if used is None or used.memory_bytes is None else show.size(used.memory_bytes),
        (gpus(used) if used else "") or "-",
        "-" if row.value is None else f"{show.cut(row.metric, _METRIC_WIDTH)} {row.value:g}",
        show.cut(row.line, 60) or "-",
    ]


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Read keys as they are pressed, without echo."""
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, before)


def _pressed_q(limit_s: float) -> bool:
    if not select.select([sys.stdin], [], [], limit_s)[0]:
        return False
    pressed = os.read(sys.stdin.fileno(), 64)
    return not pressed or b"q" in pressed.lower()
