"""`spell stats`: shows the current CPU, memory and GPU use of runs, once or repeatedly."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence

import click

from orchestrator.cli.input import complete
from orchestrator.cli.input.durations import Duration
from orchestrator.cli.output import show
from orchestrator.cli.output.redraw import Redraw
from orchestrator.client.client import Client, connect
from orchestrator.errors import Conflict
from orchestrator.records.runs import StatRecord
from orchestrator.spec.run import to_wire
from orchestrator.states import ACTIVE, State

_COMMAND_WIDTH = 40
_HEADERS = ["ID", "NAME", "CPU", "MEMORY / LIMIT", "PROCESSES", "GPU", "TIME"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", nargs=-1, shell_complete=complete.active)
@click.option("-f", "--follow", is_flag=True, help="Repeat until the runs have ended.")
@click.option(
    "--interval",
    "interval_s",
    type=Duration("seconds", 0.1, 3600),
    default=2.0,
    show_default=True,
    metavar="TIME",
    help="Time between two samples with -f.",
)
@click.option("--json", "json_", is_flag=True, help="Print JSON; with -f one line for each run and sample.")
def stats(run: Sequence[str], follow: bool, interval_s: float, json_: bool) -> None:
    """Show the current CPU, memory and GPU use of each RUN, or of all running runs."""
    with connect() as client:
        if follow:
            _follow(client, run, interval_s, json_=json_)
            return
        found = client.stats.list(run)
    if json_:
        show.as_json(found)
    elif not found:
        show.say("Nothing is running.")
    else:
        show.table(_HEADERS, [used(item) for item in found])


def _follow(client: Client, references: Sequence[str], interval_s: float, *, json_: bool) -> None:
    screen = Redraw()
    left = [str(client.runs.get(reference).number) for reference in references]
    known: list[str] = []
    found = client.stats.list(left)
    while found:
        known = known or left or [str(item.run) for item in found]
        if json_:
            sys.stdout.write("".join(json.dumps(to_wire(item)) + "\n" for item in found))
            sys.stdout.flush()
        else:
            screen.show_table(_HEADERS, [used(item) for item in found])
        time.sleep(interval_s)
        left, found = _next(client, left, all_=not references)
    for number in known:
        show.say(f"Run {number} is no longer running", err=json_)
    if not known:
        show.say("Nothing is running.", err=json_)


def _next(client: Client, left: list[str], *, all_: bool) -> tuple[list[str], list[StatRecord]]:
    """Return the runs that still run, and their use."""
    if all_:
        return [], client.stats.list()
    while left:
        try:
            return left, client.stats.list(left)
        except Conflict:  # one of them has ended, or is retried
            running = [number for number in left if client.runs.get(number).state == State.RUNNING]
            left = running if running != left else [n for n in left if client.runs.get(n).state in ACTIVE]
            time.sleep(0.1)
    return [], []


def used(item: StatRecord) -> list[str]:
    """Return the cells of one run."""
    limit = show.size(item.memory_limit_bytes) if item.memory_limit_bytes else "-"
    return [
        str(item.run),
        item.name or show.cut(item.command, _COMMAND_WIDTH),
        "?" if item.cpu_percent is None else f"{item.cpu_percent:.0f}%",
        f"{'?' if item.memory_bytes is None else show.size(item.memory_bytes)} / {limit}",
        "?" if item.processes is None else str(item.processes),
        gpus(item) or "-",
        show.duration(round(item.duration_s)),
    ]


def gpus(item: StatRecord) -> str:
    """Return the use of all GPUs of a run: `0: 97% 12G/80G, …`."""
    return ", ".join(_gpu(gpu) for gpu in item.gpus)


def _gpu(gpu: Mapping[str, float]) -> str:
    """Return the use of one GPU: `0: 97% 12G/80G`. Unknown values are left out."""
    words = [f"{gpu['index']:.0f}:"]
    if "utilization_percent" in gpu:
        words.append(f"{gpu['utilization_percent']:.0f}%")
    if "memory_used_bytes" in gpu:
        words.append(f"{show.size(int(gpu['memory_used_bytes']))}/{show.size(int(gpu['memory_total_bytes']))}")
    return " ".join(words)
