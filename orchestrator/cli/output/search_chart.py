"""Draws a metric of the trials of a search in one chart."""

from __future__ import annotations

import shutil
import sys

from orchestrator.cli.output import show
from orchestrator.cli.output.metric_series import Look, Series
from orchestrator.client.client import Client
from orchestrator.records.searches import SearchRecord, TrialRecord

_MOST = 6  # a chart has as many signs for curves


def chart_trials(client: Client, search: SearchRecord, name: str, look: Look) -> None:
    """Draw the metric `name` of the best trials of a search, or its own metric; with neither, each metric has a chart."""
    from orchestrator.cli.output.metric_chart import charts  # 120 ms: plotext; lists need none

    name = name or search.metric
    trials = _best_first(search)
    found: dict[str, dict[str, Series]] = {}
    drawn: set[int] = set()
    for trial in trials:
        if len(drawn) == _MOST:
            break
        values = ", ".join(f"{key}={value}" for key, value in trial.params.items())
        sent = client.metrics.list(str(trial.run), name) if name else client.metrics.each(str(trial.run))
        for item in sent:
            drawn.add(trial.number)
            label = f"{trial.run} {values}" if name else f"{trial.run} {item.name} {values}"
            found.setdefault(item.name, {}).setdefault(label, Series(look)).add(item.step, item.value)
    if not found:
        show.say(f"Its trials have sent no {'such ' * bool(name)}metrics.", err=True)
        return
    if name:
        show.say(name)
    sys.stdout.write("\n".join(charts(found, *shutil.get_terminal_size(), look)) + "\n")
    if len(trials) > len(drawn):
        best = "best " * any(trial.value is not None for trial in trials)
        show.say(f"Drawn: the {len(drawn)} {best}of {show.count(len(trials), 'trial')}.", err=True)


def _best_first(search: SearchRecord) -> list[TrialRecord]:
    trials = [trial for trial in search.trials if trial.run]
    sign = -1 if search.direction == "maximize" else 1
    return sorted(trials, key=lambda trial: (trial.value is None, sign * (trial.value or 0.0)))
