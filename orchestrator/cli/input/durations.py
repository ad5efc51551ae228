"""Durations and times as values of options."""

from __future__ import annotations

import time
from contextlib import suppress

import click

from orchestrator.errors import InvalidConfig, UsageError


class Duration(click.ParamType[float]):
    """A duration, as `spec.durations` reads it; the verb gets it in the unit of a plain number.

    Args:
        unit: `seconds`, `minutes` or `days`.
        least, most: the range, in that unit; None for any that the spec allows.
    """

    name = "duration"

    def __init__(self, unit: str, least: float | None = None, most: float | None = None) -> None:
        self._unit, self._least, self._most = unit, least, most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the duration in the unit."""
        from orchestrator.spec.durations import UNITS_S, seconds  # 0.3 ms; few commands have such an option

        try:
            found = (
                float(value)
                if isinstance(value, int | float)
                else seconds(str(value), self._unit) / UNITS_S[self._unit]
            )
        except InvalidConfig as error:
            self.fail(error.whole, param, ctx)
        if (self._least is not None and found < self._least) or (self._most is not None and found > self._most):
            self.fail(f"{value!r} is not between {self._least:g} and {self._most:g} {self._unit}.", param, ctx)
        return found


def since(text: str) -> float:
    """Parse a time: a duration ago (`2h`), or a date with or without a time. Returns seconds since the epoch.

    Raises:
        UsageError: if it is neither.
    """
    from datetime import datetime  # 2 ms; few commands have such an option

    from orchestrator.spec.durations import seconds  # 0.3 ms, too

    with suppress(InvalidConfig):
        return time.time() - seconds(text)
    try:
        return datetime.fromisoformat(text).timestamp()  # in the local zone, unless it names one
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{text!r} is not a time.", "Write it as 90s, 30m, 2h, 3d, 1w (ago), 2026-11-01 or 2026-11-01T14:30."
        ) from None
