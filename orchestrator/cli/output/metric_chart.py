"""Draws metrics as charts in the terminal. It is loaded only for a chart, because plotext loads slowly.

Metrics of one scale share a chart, and so do the runs of one metric; a metric that would be a flat line in the chart of
the others has its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import plotext

from orchestrator.cli.output import show
from orchestrator.cli.output.metric_series import Series
from orchestrator.cli.output.streams import speaks_utf8

_LEAST_COLUMNS, _LEAST_ROWS, _MOST_ROWS = 30, 8, 24
_FLAT = 0.1  # of the height of a chart: a curve that fills less of it shows nothing
_MARKERS = "*+ox#@"
_FRAME = str.maketrans("─│┌┐└┘├┤┬┴┼", "-|+++++++++")

Metrics = Mapping[str, Mapping[str, Series]]
"""The series of each metric, by their labels: one for each run that sent it."""


def charts(metrics: Metrics, columns: int, rows: int, *, scrolls: bool = True) -> list[str]:
    """Return the lines of charts, in characters that stdout can show, without colours.

    Args:
        columns, rows: size of the terminal, in characters.
        scrolls: whether there may be more lines than the terminal has rows; else charts that do not fit are only named.
    """
    groups = _of_one_scale(metrics)
    height = max(_LEAST_ROWS, min(_MOST_ROWS, (rows - 4) // len(groups) - 1))
    shown = len(groups) if scrolls else max(1, (rows - 2) // (height + 1))
    lines = [
        line for group in groups[:shown] for line in (*_legend(group, columns - 1), *_chart(group, columns, height))
    ]
    if left_out := [label for group in groups[shown:] for label in group]:
        lines.append(show.cut(f"Not shown, as the terminal is too low: {', '.join(left_out)}", columns - 1))
    return lines


def _of_one_scale(metrics: Metrics) -> list[dict[str, Series]]:
    """Return the series of each chart, by their labels."""
    found: list[tuple[dict[str, Series], list[_Span]]] = []
    for series in metrics.values():
        span = _Span.around(_Span.around((value, value) for _, value in item.points) for item in series.values())
        for group, spans in found:
            joint = _Span.around([*spans, span])
            if all(one.height >= _FLAT * joint.height for one in (*spans, span)):
                group.update(series)
                spans.append(span)
                break
        else:
            found.append((dict(series), [span]))
    return [group for group, _ in found]


class _Span(NamedTuple):
    """The least and the greatest value of some series."""

    low: float
    high: float

    @classmethod
    def around(cls, spans: Iterable[tuple[float, float]]) -> _Span:
        """Return the span that holds all others."""
        lows, highs = zip(*spans, strict=True)
        return cls(min(lows), max(highs))

    @property
    def height(self) -> float:
        return self.high - self.low


def _legend(group: Mapping[str, Series], columns: int) -> list[str]:
    """Return the lines above a chart, where they hide no curve: each label behind the sign of its curve."""
    if len(group) == 1:
        return [show.cut(next(iter(group)), columns)]
    lines = [""]
    for place, label in enumerate(group):
        words = show.cut(f"{_marker(place)} {label}", columns)
        if lines[-1] and show.width(lines[-1]) + 3 + show.width(words) > columns:
            lines.append("")
        lines[-1] += f"   {words}" if lines[-1] else words
    return lines


def _marker(place: int) -> str:
    return _MARKERS[place % len(_MARKERS)]


def _chart(group: Mapping[str, Series], columns: int, rows: int) -> list[str]:
    figure = plotext.figure
    figure.clear.all()
    figure.plot_size(max(_LEAST_COLUMNS, columns - 1), rows)
    pretty = speaks_utf8(sys.stdout) and len(group) == 1
    for place, values in enumerate(group.values()):
        steps, heights = zip(*values.points, strict=True)
        signal = figure.signal(list(steps), list(heights), marker="braille" if pretty else _marker(place))
        signal.lines(True)
        figure.draw(signal)
    text = show.without_ansi(str(figure.build()))
    if not speaks_utf8(sys.stdout):
        text = text.translate(_FRAME).encode("ascii", "replace").decode()
    return [line.rstrip() for line in text.splitlines()]
