"""Reduces the values of a metric to as many points as a terminal can show."""

from __future__ import annotations

_MOST_POINTS = 4096


class Series:
    """Keeps the least and greatest value of each stretch of steps; no peak is lost."""

    def __init__(self) -> None:
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
        self._open = _peaks([*self._open, (step, value)]) if self._stretch > 1 else [(step, value)]
        self._count += 1
        if self._count >= self._stretch:
            self._points += self._open
            self._open, self._count = [], 0
        if len(self._points) >= _MOST_POINTS:
            self._halve()

    def _halve(self) -> None:
        points, self._stretch = self._points, self._stretch * 2
        self._points = [point for place in range(0, len(points), 4) for point in _peaks(points[place : place + 4])]


def _peaks(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) < 3:
        return points
    least, most = (choose(range(len(points)), key=lambda place: points[place][1]) for choose in (min, max))
    return [points[place] for place in sorted({least, most})]
