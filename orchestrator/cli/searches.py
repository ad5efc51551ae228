"""`spell hyper`: casts, lists, shows and ends searches over parameters."""

from __future__ import annotations

import csv
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from orchestrator.capture.snapshot import Snapshot
from orchestrator.cli.input import complete
from orchestrator.cli.input.command_files import command_files
from orchestrator.cli.input.commanding import Commanding
from orchestrator.cli.input.hints import Group
from orchestrator.cli.input.options import spec_options
from orchestrator.cli.input.spec import SpecOptions, build_spec
from orchestrator.cli.metrics import chart_options, of_look, sent_instead
from orchestrator.cli.output import show
from orchestrator.cli.output.detach import NOTHING_CAST, casting, interruptible
from orchestrator.cli.output.metric_series import Look
from orchestrator.cli.output.search_chart import chart_trials
from orchestrator.cli.output.search_console import follow, number, search_state, show_trials, warn_of_samplers
from orchestrator.cli.ready import ready
from orchestrator.client.client import Client, connect
from orchestrator.errors import UsageError
from orchestrator.records.metrics import MetricRecord
from orchestrator.records.searches import SearchRecord, SearchSummary
from orchestrator.spec.search import (
    AGGREGATES,
    BAYESIAN,
    DIRECTIONS,
    GRID,
    MAX_SEED,
    MAX_TRIALS,
    RANDOM,
    Choice,
    Range,
    SearchSpec,
    parse_space,
)

F = TypeVar("F", bound=Callable[..., Any])
_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_VALUES = "NAME=V1,V2 lists values; --json-param NAME='[\"a,b\", 2]' lists values that contain commas"
_RANGES = "; NAME=MIN:MAX[:linear|log|reverse_log][:int|float] is a range of numbers, by default linear float"
_CAST = (
    "{} The exit code is 0 if at least one trial is complete, else 1. All options of `spell run` apply to each trial."
)
_RUNS = click.option(
    "-n", "--num-runs", "runs", type=click.IntRange(1, MAX_TRIALS), metavar="N", help="Number of trials."
)
_SEED = click.option(
    "--seed",
    type=click.IntRange(-MAX_SEED, MAX_SEED),
    metavar="S",
    help="Seed of the random numbers. The same S gives the same trials.",
)


@click.group(cls=Group, context_settings=_HELP)
def hyper() -> None:
    """Search over parameters. Each trial is a run with other values for each :NAME: in its command."""


def _casts(command: F) -> F:
    """Add the arguments and options that all kinds of search have in common."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return click.argument("command", nargs=-1)(spec_options(command))


_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--json-param", metavar="N=[V,…]", multiple=True, help="Values for :N: as a JSON list."),
    click.option(
        "-r", "--parallel-runs", "parallel", type=click.IntRange(1, MAX_TRIALS), metavar="K",
        help="At most K trials at a time. [default: 100; bayesian: 1]",
    ),
    click.option(
        "--metric", default="", metavar="METRIC", shell_complete=complete.metrics,
        help="Metric to optimise: a name given to send_metric.",
    ),
    click.option(
        "-a", "--metric-agg", type=click.Choice(AGGREGATES), default="last", show_default=True,
        metavar="|".join(AGGREGATES), help="How to reduce the values of a trial to one.",
    ),
    click.option(
        "--direction", type=click.Choice(DIRECTIONS), default="minimize", show_default=True,
        metavar="|".join(DIRECTIONS), help="Whether to minimize or maximize the metric.",
    ),
    click.option("--reuse", is_flag=True, help="Reuse an identical complete run if there is one."),
    click.option("-b", "--background", is_flag=True, help="Do not wait for the end."),
    click.option("--json", "json_", is_flag=True, help="Print the search as JSON: at once with -b, else when it has ended."),
    command_files,
)  # fmt: skip


@hyper.command(cls=Commanding, context_settings=_HELP, epilog=f"{_VALUES}.")
@_casts
def grid(**typed: Any) -> None:
    """Cast a trial for each combination of values."""
    _cast(GRID, **typed)


@hyper.command(RANDOM, cls=Commanding, context_settings=_HELP, epilog=f"{_VALUES}{_RANGES}.")
@_casts
@_RUNS
@_SEED
def random_(**typed: Any) -> None:
    """Cast N trials with values chosen at random."""
    _cast(RANDOM, **typed)


@hyper.command(cls=Commanding, context_settings=_HELP, epilog=f"{_VALUES}{_RANGES}.")
@_casts
@_RUNS
@_SEED
def bayesian(**typed: Any) -> None:
    """Cast N trials, each with the most promising values after the trials before."""
    _cast(BAYESIAN, **typed)


for _verb in (grid, random_, bayesian):
    _verb.help = _CAST.format(_verb.help)


def _cast(
    kind: str, *, params: Sequence[str], json_param: Sequence[str], background: bool, json_: bool, command: Sequence[str],
    runs: int | None = None, parallel: int | None, metric: str, metric_agg: str, direction: str, seed: int | None = None, reuse: bool,
    **typed: Any,
) -> None:  # fmt: skip
    space = parse_space(params, json_param)
    _check_whole(command, space)
    first = tuple(f"{name}={_first(values)}" for name, values in space.items())
    options = SpecOptions.of(command=tuple(command), params=first, json_=json_, **typed)
    with interruptible(NOTHING_CAST):
        spec, code = build_spec(options)
        with connect() as client:
            spec = ready(client, spec, options)
    search = SearchSpec(
        kind=kind,
        spec=spec,
        space={name: space.get(name, Choice((value,))) for name, value in spec.params.items()},
        runs=runs or 0, parallel=parallel or 0, metric=metric, metric_agg=metric_agg, direction=direction, seed=seed, reuse=reuse,
    )  # fmt: skip
    with connect() as client:
        _announce(client, search, code, background=background, json_=json_)


def _check_whole(command: Sequence[str], space: Mapping[str, Any]) -> None:
    """See that the shell has not made several words of `--param NAME={V1,V2}`, of which the command gets all but the first."""
    for word in command[: len(command) - 1]:
        name, equals, _ = word.partition("=")
        if not equals or name not in space:
            return
        words = f"{word!r} stands in the place of the command."
        raise UsageError(words, f"Shells make two words of {name}={{V1,V2}}. Write it as: --param {name}=V1,V2")


def _first(values: Choice | Range) -> str:
    return values.values[0] if isinstance(values, Choice) else values.text(values.low)


def _announce(client: Client, search: SearchSpec, code: Snapshot | None, *, background: bool, json_: bool) -> None:
    searches = client.searches
    send = functools.partial(client.code.send, code) if code else None
    with casting("spell hyper list"):
        cast = searches.cast(search, send)
        for warning in cast.warnings:
            show.warn(warning)
        if not json_:
            show.say(f"💫 Casting hyperparameter search #{cast.number}…")
        found = searches.get(str(cast.number))
    if not background:
        click.get_current_context().exit(follow(searches, found, json_=json_))
    if json_:
        show.as_json(found)
    else:
        show.say(f"Follow it with `spell hyper info -f {cast.number}`")


@hyper.command("list", context_settings=_HELP)
@click.option(
    "-n", "limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="List at most N searches."
)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def list_(limit: int, json_: bool) -> None:
    """List searches, newest last."""
    with connect() as client:
        found = client.searches.list(limit=limit)
    if json_:
        show.as_json(found)
    elif not found:
        show.say("There are no searches yet. Try: spell hyper grid -h")
    else:
        headers = ["ID", "TYPE", "RUNS", "STATUS", "BEST", "CREATED", "COMMAND"]
        show.table(headers, [_line(item) for item in found])


def _line(item: SearchSummary) -> list[str]:
    best = "-" if item.best_value is None else f"{item.metric} {number(item.best_value)} (run {item.best_run})"
    runs = f"{item.trials_complete}/{item.trials_count}"
    return [str(item.number), item.kind, runs, search_state(item), best, show.ago(item.created_at), item.command]


@hyper.command(context_settings=_HELP)
@click.argument("search", shell_complete=complete.searches)
@click.option("-f", "--follow", "follow_", is_flag=True, help="Follow the search until it has ended.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def info(ctx: click.Context, search: str, follow_: bool, json_: bool) -> None:
    """Show SEARCH and its trials. SEARCH is a number, or latest."""
    with connect() as client:
        searches = client.searches
        found = searches.get(search)
        if follow_:
            ctx.exit(follow(searches, found, json_=json_))
    if json_:
        show.as_json(found)
    else:
        _show(found)


def _show(found: SearchRecord) -> None:
    metric = f"{found.metric} ({found.metric_agg}, {found.direction})" if found.metric else "-"
    facts = {
        "Type": found.kind,
        "Command": found.command,
        "Space": "; ".join(f"{name}={_range(values)}" for name, values in found.space.items()),
        "Status": search_state(found),
        "Runs": f"{found.trials_complete} of {found.trials_count} complete",
        "Metric": metric,
        "Seed": "" if found.kind == GRID else str(found.seed),
        "Sampler": "; ".join(
            f"from trial {first}: {name}" if first != "1" else name for first, name in found.samplers.items()
        ),
        "Created": show.clock(found.created_at),
        "Duration": "" if found.ended_at is None else show.duration(round(found.ended_at - found.created_at, 3)),
        "Message": found.message,
    }
    show.say(f"Search {found.number}")
    for name, value in facts.items():
        if value:
            show.say(f"{name.ljust(9)} {value}")
    warn_of_samplers(found)
    if found.trials:
        click.echo()
        show_trials(found)


def _range(values: Mapping[str, Any]) -> str:
    """Return the values of a parameter in the form of the command line."""
    if "values" in values:
        return ",".join(values["values"])
    return f"{values['low']:g}:{values['high']:g}:{values['scaling']}:{values['number']}"


@hyper.command(context_settings=_HELP)
@click.argument("search", shell_complete=complete.active_searches)
def stop(search: str) -> None:
    """Stop SEARCH and keep the outputs of its runs. No further trial starts."""
    with connect() as client:
        found = client.searches.stop(search)
    show.say(f"Stopping search {found.number}. Resume it with `spell hyper resume {found.number}`")


@hyper.command(context_settings=_HELP)
@click.argument("search", shell_complete=complete.active_searches)
def kill(search: str) -> None:
    """Kill SEARCH at once. The outputs of its active runs are lost, and no further trial starts."""
    with connect() as client:
        found = client.searches.kill(search)
    show.say(f"Killing search {found.number}.")


@hyper.command(context_settings=_HELP)
@click.argument("search", shell_complete=complete.searches)
@click.option("-b", "--background", is_flag=True, help="Do not wait for the end.")
@click.option(
    "--json", "json_", is_flag=True, help="Print the search as JSON: at once with -b, else when it has ended."
)
@click.pass_context
def resume(ctx: click.Context, search: str, background: bool, json_: bool) -> None:
    """Continue SEARCH, which has ended: cast failed trials again, and those that were never cast."""
    with connect() as client:
        searches = client.searches
        found = searches.resume(search)
        if not json_:
            show.say(f"💫 Resuming hyperparameter search #{found.number}…")
        if not background:
            ctx.exit(follow(searches, found, json_=json_))
    if json_:
        show.as_json(found)


@hyper.command(context_settings=_HELP)
@click.argument("search", shell_complete=complete.searches)
@click.argument("name", default="", shell_complete=complete.metrics_of_search)
@click.option("--chart", is_flag=True, help="Draw the metric of the search, or NAME, of its best trials.")
@chart_options
@click.option("--csv", "csv_", is_flag=True, help="Print CSV with a header.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def metrics(search: str, name: str, chart: bool, csv_: bool, json_: bool, **look: Any) -> None:
    """List the values that the trials of SEARCH sent with send_metric: all, or only those of the metric NAME."""
    if csv_ + json_ + chart > 1:
        raise UsageError("Choose one of --csv, --json and --chart.")
    with connect() as client:
        if of_look(Look(**look), chart or None, listed=csv_ or json_):
            chart_trials(client, client.searches.get(search), name, Look(**look))
            return
        trials = client.searches.get(search).trials
        found = (item for trial in trials if trial.run for item in client.metrics.list(str(trial.run), name))
        if csv_:
            _write_csv(found)
        elif json_:
            show.as_json(list(found))
        elif lines := list(found):
            show.table(["RUN", "METRIC", "STEP", "VALUE", "TIME"], [_metric(item) for item in lines])
        else:
            runs = [str(trial.run) for trial in trials if trial.run]
            words = f"Its trials have sent no {'such ' * bool(name)}metrics."
            show.say(f"{words}\n{sent_instead(client, runs)}", err=True)


def _metric(item: MetricRecord) -> list[str]:
    return [str(item.run), item.name, str(item.step), number(item.value), show.clock(item.at)]


def _write_csv(found: Iterator[MetricRecord]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["run_id", "metric_name", "timestamp", "index", "value"])
    writer.writerows([item.run, item.name, item.at, item.step, item.value] for item in found)
