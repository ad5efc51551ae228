"""`spell metrics`: prints the values that runs sent with send_metric, as lines, chart, CSV or JSON, once or live."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from orchestrator.cli.input import complete
from orchestrator.cli.output import show
from orchestrator.cli.output.metric_series import Look, Series
from orchestrator.cli.output.redraw import Redraw
from orchestrator.client.client import Client, connect
from orchestrator.errors import NotFound, UsageError
from orchestrator.records.metrics import MetricRecord, MetricSummary
from orchestrator.spec.run import to_wire

F = TypeVar("F", bound=Callable[..., Any])
_MORE_RUNS = re.compile(r"\d+|latest(~\d+)?")
_LOOK_S = 0.5
_CSV = ["run_id", "metric_name", "timestamp", "index", "value"]
_HEADERS = ["METRIC", "STEP", "VALUE", "TIME"]
_HOW_TO_SEND = (
    "A run sends them from Python, without installing anything:\n"
    "  from orchestrator.runtime import send_metric\n"
    '  send_metric("loss", 0.5, step=1)'
)
_LOOK: Sequence[Callable[[Any], Any]] = (
    click.option("--log", is_flag=True, help="Chart on a logarithmic scale."),
    click.option(
        "--smooth", type=click.FloatRange(0, 1, max_open=True), default=0.0, metavar="W", show_default=False,
        help="Chart moving averages; W, from 0 to below 1, is the weight of what came before, as in TensorBoard.",
    ),
    click.option("--separate", is_flag=True, help="A chart for each metric, each with its own scale."),
)  # fmt: skip
_SUMMARY = ["METRIC", "COUNT", "STEP", "LAST", "MIN", "MAX", "MEAN"]


def chart_options(command: F) -> F:
    """Add the options that say how charts look."""
    for option in reversed(_LOOK):
        command = option(command)
    return command


def of_look(look: Look, chart: bool | None, *, listed: bool) -> bool | None:
    """Return whether to draw a chart: an option about its look asks for one.

    Raises:
        UsageError: if something else is asked for, too.
    """
    if look == Look():
        return chart
    if chart is False or listed:
        raise UsageError("--log, --smooth and --separate are about charts, and no chart was asked for.")
    return True


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", shell_complete=complete.runs)
@click.argument("names", nargs=-1, metavar="[RUN…] [NAME…]", shell_complete=complete.metrics_of_run)
@click.option("-f", "--follow", is_flag=True, help="Print new values until the runs have ended.")
@click.option(
    "--chart/--no-chart", "chart", default=None, help="Draw the values (default on a terminal), or list them."
)
@chart_options
@click.option(
    "--csv", "csv_", is_flag=True, help="Print all values as CSV: run_id, metric_name, timestamp, index, value."
)
@click.option("--json", "json_", is_flag=True, help="Print all values as JSON; with -f one line for each.")
def metrics(
    run: str, names: Sequence[str], follow: bool, chart: bool | None, csv_: bool, json_: bool, **look: Any
) -> None:
    """Show the metrics that RUN sent with send_metric, or logged by a tracker such as TensorBoard: a line for each metric, or the values of each NAME.

    Words after RUN that are whole numbers, latest or latest~1 are further runs; all other words are names of metrics."""
    if csv_ + json_ + bool(chart) > 1:
        raise UsageError("Choose one of --csv, --json and --chart.")
    chart = of_look(Look(**look), chart, listed=csv_ or json_)
    more = [word for word in names if _MORE_RUNS.fullmatch(word)]
    names = [word for word in names if word not in more]
    with connect() as client:
        runs = list(dict.fromkeys(str(client.runs.get(reference).number) for reference in (run, *more)))
        if names and not follow:
            _check_names(client, runs, names)
        view = _View(client, runs, names, Look(**look), follow=follow)
        if csv_:
            shown = view.csv()
        elif json_:
            shown = view.json()
        elif chart or (names and chart is None and sys.stdout.isatty()):
            shown = view.chart()
        elif names or chart is not None:
            shown = view.lines()
        else:
            shown = view.summaries()
        if not shown and not json_:
            who = f"Run {runs[0]} has" if len(runs) == 1 else "These runs have"
            show.say(f"{who} sent no {'such ' * bool(names)}metrics.\n{sent_instead(client, runs)}", err=True)


def sent_instead(client: Client, runs: Sequence[str]) -> str:
    """Return which metrics these runs have sent, or how a run sends some."""
    sent = {item.name for run in runs for item in client.metrics.summaries(run)}
    return f"Sent: {', '.join(sorted(sent))}" if sent else _HOW_TO_SEND


def _check_names(client: Client, runs: Sequence[str], names: Sequence[str]) -> None:
    """Warn of metrics that no run has sent.

    Raises:
        NotFound: if no run has sent any of them.
    """
    sent = {item.name for run in runs for item in client.metrics.summaries(run)}
    unknown = [name for name in names if name not in sent]
    who = f"Run {runs[0]}" if len(runs) == 1 else "None of these runs"
    has = "did not send" if len(runs) == 1 else "sent"
    words = f"{who} {has} the metric {', '.join(map(repr, unknown))}."
    cure = sent_instead(client, runs)
    if unknown and len(unknown) == len(names):
        raise NotFound(words, cure)
    if unknown:
        show.warn(f"{words} {cure}")


class _View:
    """Some metrics of some runs. Its methods print them, and return whether there was anything to print."""

    def __init__(self, client: Client, runs: Sequence[str], names: Sequence[str], look: Look, *, follow: bool) -> None:
        self._metrics, self._runs, self._names, self._follow = client.metrics, runs, names, follow
        self._look = look

    def csv(self) -> bool:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_CSV)
        return self._each(lambda item: writer.writerow([item.run, item.name, item.at, item.step, item.value]))

    def json(self) -> bool:
        if self._follow:
            return self._each(lambda item: sys.stdout.write(json.dumps(to_wire(item)) + "\n"))
        show.as_json([item for page in self._pages() for item in page])
        return True

    def lines(self) -> bool:
        if self._follow:
            sys.stdout.write("\t".join(self._headers()) + "\n")
            return self._each(lambda item: show.say("\t".join(self._row(item))))
        rows = [self._row(item) for page in self._pages() for item in page]
        if rows:
            show.table(self._headers(), rows)
        return bool(rows)

    def chart(self) -> bool:
        from orchestrator.cli.output.metric_chart import charts  # 120 ms: plotext; lines and CSV need none

        found: dict[str, dict[str, Series]] = {}
        screen = Redraw()
        for page in self._pages():
            for item in page:
                label = f"{item.run} {item.name}" if len(self._runs) > 1 else item.name
                found.setdefault(item.name, {}).setdefault(label, Series(self._look)).add(item.step, item.value)
            if found and (self._follow and page):
                screen.show(charts(found, *shutil.get_terminal_size(), self._look, scrolls=not screen.in_place))
        if found and not self._follow:
            sys.stdout.write("\n".join(charts(found, *shutil.get_terminal_size(), self._look)) + "\n")
        return bool(found)

    def summaries(self) -> bool:
        screen, shown = Redraw(), False
        for _ in self._pages() if self._follow else [None]:
            found = [item for run in self._runs for item in self._metrics.summaries(run)]
            rows = [([str(item.run)] if len(self._runs) > 1 else []) + _summary(item) for item in found]
            if rows:
                headers = (["RUN"] if len(self._runs) > 1 else []) + _SUMMARY
                screen.show_table(headers, rows)
                shown = True
        return shown

    def _headers(self) -> list[str]:
        return (["RUN"] if len(self._runs) > 1 else []) + _HEADERS

    def _row(self, item: MetricRecord) -> list[str]:
        row = [item.name, str(item.step), f"{item.value:g}", show.clock(item.at)]
        return [str(item.run), *row] if len(self._runs) > 1 else row

    def _each(self, act: Callable[[MetricRecord], object]) -> bool:
        found = False
        for page in self._pages():
            for item in page:
                act(item)
                found = True
            sys.stdout.flush()
        return found

    def _pages(self) -> Iterator[list[MetricRecord]]:
        """Yield the values page by page; with `follow` until all runs have ended."""
        places = dict.fromkeys(self._runs, 0)
        while places:
            idle = True
            for run in list(places):
                page = self._metrics.page(run, places[run])
                places[run] = page.next
                if page.over or not (page.values or self._follow):
                    del places[run]
                idle = idle and not page.values
                yield [item for item in page.values if not self._names or item.name in self._names]
            if idle and places:
                time.sleep(_LOOK_S)


def _summary(item: MetricSummary) -> list[str]:
    numbers = (item.last, item.least, item.most, item.mean)
    return [item.name, str(item.count), str(item.step), *(f"{number:g}" for number in numbers)]
