"""Lists runs: ps, search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from orchestrator.cli.input import complete
from orchestrator.cli.input.durations import since
from orchestrator.cli.output import show
from orchestrator.client.client import Client, connect
from orchestrator.client.runs import Runs
from orchestrator.errors import UsageError
from orchestrator.records.run_summary import RunSummary
from orchestrator.spec.filters import Filter, parse_sort
from orchestrator.states import ACTIVE, State

F = TypeVar("F", bound=Callable[..., Any])
_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_WAITING_SHOWN = 3
_COMMAND_WIDTH = 40
_USUAL = 50
_ALL = 10_000
_MOST_METRICS_AT_ONCE = 1_000  # one request for each run

_FILTERS = (
    click.option(
        "-n", "limit", type=click.IntRange(1, _ALL), default=_USUAL, show_default=True, help="List at most N runs."
    ),
    click.option("-a", "--all", "all_", is_flag=True, help="List all runs."),
    click.option(
        "-s",
        "--state",
        multiple=True,
        shell_complete=complete.states,
        help="Only runs in this state: running, failed, active, …",
    ),
    click.option(
        "-l",
        "--label",
        multiple=True,
        shell_complete=complete.labels,
        help="Only runs with this label, or with any of several.",
    ),
    click.option("-p", "--project", default="", shell_complete=complete.projects, help="Only runs in this project."),
    click.option(
        "-t",
        "--machine-type",
        multiple=True,
        shell_complete=complete.machine_types,
        help="Only runs on this machine type.",
    ),
    click.option("--name", default="", shell_complete=complete.names, help="Only runs with this name."),
    click.option(
        "--since",
        default="",
        metavar="TIME",
        help="Only runs cast since this time: 2h, 3d, 2026-11-01, 2026-11-01T14:30",
    ),
    click.option(
        "--metric",
        multiple=True,
        metavar="COND",
        shell_complete=complete.metrics,
        help="Only runs whose latest value meets this condition, or all of several: 'loss < 0.5'",
    ),
    click.option(
        "--sort",
        default="",
        metavar="KEY",
        shell_complete=complete.sort_keys,
        help="Sort by number, duration or metric:NAME, the largest last. With -KEY the smallest comes last.",
    ),
    click.option("--archived", is_flag=True, help="Only archived runs."),
    click.option("-v", "--verbose", is_flag=True, help="Show more columns."),
    click.option("--json", "json_", is_flag=True, help="Print JSON."),
)


def _filters(command: F) -> F:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


@click.command(context_settings=_HELP)
@_filters
def ps(**filters: Any) -> None:
    """List runs, newest last."""
    _list((), **filters)


@click.command(context_settings=_HELP)
@click.argument("text", nargs=-1, required=True)
@_filters
def search(text: Sequence[str], **filters: Any) -> None:
    """Find runs whose command or description contains every TEXT, regardless of case."""
    _list(text, **filters)


def _list(text: Sequence[str], limit: int, all_: bool, sort: str, verbose: bool, json_: bool, **filters: Any) -> None:
    wanted = Filter(
        states=tuple(_states(filters["state"])),
        labels=filters["label"],
        machine_types=filters["machine_type"],
        name=filters["name"],
        project=filters["project"],
        since=since(filters["since"]) if filters["since"] else 0.0,
        metrics=filters["metric"],
        text=text,
        archived=filters["archived"],
    )
    order = parse_sort(sort)
    metrics = list(dict.fromkeys([part.metric for part in wanted.parts()] + ([order.metric] if order.metric else [])))
    with connect() as client:
        runs = client.runs
        found = _every(runs, wanted, sort) if all_ else runs.list(wanted, sort, limit=limit)
        values = [] if json_ else [_latest(client, found, name) for name in metrics]
    if json_:
        show.as_json(found)
    elif not found:
        is_all = wanted == Filter() and not sort
        show.say("There are no runs yet. Try: spell run …" if is_all else "No runs match.")
    else:
        _table(found, verbose, list(zip(metrics, values, strict=True)))
        if len(found) == limit == _USUAL and not all_:
            show.say(f"The list ends after {show.count(limit, 'run')}. List all with -a.", err=True)


def _every(runs: Runs, wanted: Filter, sort: str) -> list[RunSummary]:
    """Return all runs that match, read page by page."""
    found = runs.list(wanted, sort, limit=_ALL)
    page = found
    while len(page) == _ALL:
        place = {"skip": len(found)} if sort else {"before": page[0].number}
        page = runs.list(wanted, sort, limit=_ALL, **place)
        found = page + found
    return found


def _latest(client: Client, found: Sequence[RunSummary], name: str) -> list[str]:
    """Return the latest value of a metric for each run."""
    values = []
    for run in found[-_MOST_METRICS_AT_ONCE:]:
        last = {item.name: item.last for item in client.metrics.summaries(str(run.number))}
        values.append(f"{last[name]:g}" if name in last else "-")
    return ["-"] * (len(found) - len(values)) + values


def _states(texts: Sequence[str]) -> list[str]:
    found: list[str] = []
    for text in texts:
        name = text.lower().replace("-", "_").replace(" ", "_")
        name = {"queued": State.MACHINE_REQUESTED.value}.get(name, name)
        if name == "active":
            found += sorted(ACTIVE)
        elif name in list(State):
            found.append(name)
        else:
            raise UsageError(f"There is no state {text!r}.", f"Use one of: active, queued, {', '.join(State)}.")
    return found


def _table(found: Sequence[RunSummary], verbose: bool, metrics: Sequence[tuple[str, Sequence[str]]]) -> None:
    headers = ["ID", "NAME", "REPOSITORY", "COMMAND", "STATUS", "CREATED", *(show.cut(name, 20) for name, _ in metrics)]
    headers += ["COMMIT", "MACHINE", "DURATION", "DESCRIPTION", "PROJECT", "LABELS"] if verbose else []
    rows = []
    for index, run in enumerate(found):
        row = [
            str(run.number),
            run.name or "-",
            run.repository or "-",
            show.cut(run.command, _COMMAND_WIDTH),
            show.state(run.state, run.exit_code, run.signal, run.wish),
            show.ago(run.created_at),
            *(values[index] for _, values in metrics),
        ]
        rows.append([*row, *_more(run)] if verbose else row)
    show.table(headers, rows)
    for run in [run for run in found if run.waits_for][:_WAITING_SHOWN]:
        show.say(f"ℹ️  Run {run.number} waits for {run.waits_for}.", err=True)  # what counts lines counts runs


def _more(run: RunSummary) -> Iterator[str]:
    yield run.commit[:8] + ("*" if run.dirty else "") or "-"
    yield run.machine_type
    yield "-" if run.duration_s is None else show.duration(round(run.duration_s, 1))
    yield show.cut(run.description, _COMMAND_WIDTH) or "-"
    yield run.project or "-"
    yield ", ".join(run.labels) or "-"
