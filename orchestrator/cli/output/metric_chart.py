"""Draws metrics as charts in the terminal. It is loaded only for a chart, because plotext loads slowly.

Metrics of one scale share a chart, and so do the runs of one metric; a metric that would be a flat line in the chart of
the others has its own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import plotext

from orchestrator.cli.output import show
from orchestrator.cli.output.metric_series import Look, Series
from orchestrator.cli.output.streams import speaks_utf8

_LEAST_COLUMNS, _LEAST_ROWS, _MOST_ROWS = 30, 8, 24
_FLAT = 0.1  # of the height of a chart: a curve that fills less of it shows nothing
_MOST_DRAWN = 8e307
_TICKS = 4
_AS_IT_IS = Look()
_MARKERS = "*+ox#@"
_FRAME = str.maketrans("─│┌┐└┘├┤┬┴┼", "-|+++++++++")

Metrics = Mapping[str, Mapping[str, Series]]
"""The series of each metric, by their labels: one for each run that sent it."""


def charts(metrics: Metrics, columns: int, rows: int, look: Look = _AS_IT_IS, *, scrolls: bool = True) -> list[str]:
    """Return the lines of charts, in characters that stdout can show, without colours.

    Args:
        columns, rows: size of the terminal, in characters.
        look: that of the series.
        scrolls: whether there may be more lines than the terminal has rows; else charts that do not fit are only named.
    """
    shown_metrics = {
        name: {label: item for label, item in series.items() if item.points} for name, series in metrics.items()
    }
    groups = _of_one_scale({name: series for name, series in shown_metrics.items() if series}, separate=look.separate)
    left_out_values = sum(item.left_out for series in metrics.values() for item in series.values())
    lines = (
        [f"Not shown, as a logarithmic scale has no place for them: {show.count(left_out_values, 'value')}"]
        if left_out_values
        else []
    )
    if not groups:
        return lines
    height = max(_LEAST_ROWS, min(_MOST_ROWS, (rows - 4) // len(groups) - 1))
    shown = len(groups) if scrolls else max(1, (rows - 2) // (height + 1))
    for group in groups[:shown]:
        lines += [*_legend(group, columns - 1), *_chart(group, columns, height, log=look.log)]
    if left_out := [label for group in groups[shown:] for label in group]:
        lines.append(show.cut(f"Not shown, as the terminal is too low: {', '.join(left_out)}", columns - 1))
    return lines


def _of_one_scale(metrics: Metrics, *, separate: bool) -> list[dict[str, Series]]:
    """Return the series of each chart, by their labels."""
    if separate:
        return [dict(series) for series in metrics.values()]
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


def _chart(group: Mapping[str, Series], columns: int, rows: int, *, log: bool) -> list[str]:
    figure = plotext.figure
    figure.clear.all()
    figure.plot_size(max(_LEAST_COLUMNS, columns - 1), rows)
    extent: set[float] = set()
    pretty = speaks_utf8(sys.stdout) and len(group) == 1
    for place, values in enumerate(group.values()):
        steps, heights = zip(*((step, _drawable(value)) for step, value in values.points), strict=True)
        extent.update(heights)
        signal = figure.signal(list(steps), list(heights), marker="braille" if pretty else _marker(place))
        signal.lines(True)
        figure.draw(signal)
    if log:
        places = _decades(min(extent), max(extent))
        figure.ruler("y").ticks(places, [f"{10**place:.3g}" for place in places])
    text = show.without_ansi(str(figure.build()))
    if not speaks_utf8(sys.stdout):
        text = text.translate(_FRAME).encode("ascii", "replace").decode()
    return [line.rstrip() for line in text.splitlines()]


def _drawable(value: float) -> float:
    """Return a value near it that plotext can draw: the height of a chart must be a number."""
    return max(-_MOST_DRAWN, min(_MOST_DRAWN, value))


def _decades(low: float, high: float) -> list[float]:
    """Return at most some places on a logarithmic scale: powers of ten, or between them where there are too few."""
    first, last = math.ceil(low), math.floor(high)
    if last - first < 2:
        return [low + (high - low) * part / _TICKS for part in range(_TICKS + 1)] if high > low else [low]
    return [float(place) for place in range(first, last + 1, 1 + (last - first) // _TICKS)]
