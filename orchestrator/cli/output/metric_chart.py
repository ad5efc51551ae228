"""Draws metrics as a chart in the terminal. It is loaded only for a chart, because plotext loads slowly."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import plotext

from orchestrator.cli.output import show
from orchestrator.cli.output.metric_series import Series
from orchestrator.cli.output.streams import speaks_utf8

_LEAST_COLUMNS, _LEAST_ROWS, _MOST_ROWS = 30, 8, 24
_MARKERS = "*+ox#@"
_FRAME = str.maketrans("─│┌┐└┘├┤┬┴┼", "-|+++++++++")


def chart(series: Mapping[str, Series], columns: int, rows: int) -> list[str]:
    """Return the lines of a chart, in characters that stdout can show, without colours.

    Args:
        series: by their labels in the legend.
        columns, rows: size of the terminal, in characters.
    """
    figure = plotext.figure
    figure.clear.all()
    figure.plot_size(max(_LEAST_COLUMNS, columns - 1), max(_LEAST_ROWS, min(_MOST_ROWS, rows - 4)))
    pretty = speaks_utf8(sys.stdout) and len(series) == 1
    for place, (label, values) in enumerate(series.items()):
        signal = figure.signal(*_columns(values.points), marker="braille" if pretty else _MARKERS[place % 6])
        signal.lines(True)
        signal.label(show.cut(label, 30))
        figure.draw(signal)
    figure.legend(len(series) > 1)
    text = show.without_ansi(str(figure.build()))
    if not speaks_utf8(sys.stdout):
        text = text.translate(_FRAME).encode("ascii", "replace").decode()
    title = [show.cut(next(iter(series)), columns - 1)] if len(series) == 1 else []
    return [*title, *(line.rstrip() for line in text.splitlines())]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
