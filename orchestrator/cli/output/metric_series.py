"""Reduces the values of a metric to as many points as a terminal can show."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MOST_POINTS = 4096


@dataclass(frozen=True, slots=True)
class Look:
    """How charts show their values.

    Attributes:
        log: whether the scale is logarithmic; values that are not positive then are left out.
        smooth: the weight of all earlier values in each shown one, from 0 (as they are) to below 1.
        separate: whether each metric has a chart of its own.
    """

    log: bool = False
    smooth: float = 0.0
    separate: bool = False


_AS_IT_IS = Look()


class Series:
    """Keeps the least and greatest value of each stretch of steps; no peak is lost.

    Attributes:
        left_out: how many values a logarithmic scale cannot show.
    """

    def __init__(self, look: Look = _AS_IT_IS) -> None:
        self._look, self.left_out = look, 0
        self._average, self._weight = 0.0, 1.0
        self._points: list[tuple[float, float]] = []
        self._stretch = 1
        self._open: list[tuple[float, float]] = []
        self._count = 0

    @property
    def points(self) -> list[tuple[float, float]]:
        """Pairs of step and value, in the order in which the run sent them."""
        return [*self._points, *_peaks(self._open)]

    def add(self, step: float, value: float) -> None:
        """Add one value."""
        if self._look.smooth:
            value = self._smoothed(value)
        if self._look.log:
            if value <= 0:
                self.left_out += 1
                return
            value = math.log10(value)
        self._open = _peaks([*self._open, (step, value)]) if self._stretch > 1 else [(step, value)]
        self._count += 1
        if self._count >= self._stretch:
            self._points += self._open
            self._open, self._count = [], 0
        if len(self._points) >= _MOST_POINTS:
            self._halve()

    def _smoothed(self, value: float) -> float:
        """Return the exponential moving average, without its bias to the start at 0: as TensorBoard smooths."""
        smooth = self._look.smooth
        self._average = smooth * self._average + (1 - smooth) * value
        self._weight *= smooth
        return self._average / (1 - self._weight)

    def _halve(self) -> None:
        points, self._stretch = self._points, self._stretch * 2
        self._points = [point for place in range(0, len(points), 4) for point in _peaks(points[place : place + 4])]


def _peaks(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) < 3:
        return points
    least, most = (choose(range(len(points)), key=lambda place: points[place][1]) for choose in (min, max))
    return [points[place] for place in sorted({least, most})]
