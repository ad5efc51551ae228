"""Conditions on metrics: `loss < 0.1`, `loss > 10:100`, `loss < 0.1 && accuracy > 0.9`.

    CONDITION := PART { "&&" PART }
    PART      := METRIC OP VALUE [ ":" MIN_INDEX ]      OP := < | <= | > | >=

A part holds when the latest value of its metric, sent at step MIN_INDEX or later, fulfils the comparison. A condition is met
as soon as all its parts hold; several conditions are alternatives.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from orchestrator.errors import InvalidConfig

MAX_CONDITIONS = 5
_PART = r"\s*(?P<metric>[^<>=&\s](?:[^<>=&]*[^<>=&\s])?)\s*(?P<op><=|>=|<|>)\s*(?P<value>[^\s:&]+)\s*(?::\s*(?P<index>\d{1,18})\s*)?\Z"
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FORM = "Write it as METRIC OP VALUE[:MIN_INDEX], with <, <=, > or >=: 'loss > 10:100'."


class Part(NamedTuple):
    """One comparison of a metric's latest value."""

    metric: str
    op: str
    value: float
    min_index: int = 0

    def holds(self, value: float) -> bool:
        """Whether this value fulfils the comparison."""
        return _OPERATORS[self.op](value, self.value)


def parse(text: str) -> tuple[Part, ...]:
    """Split a condition into its parts.

    Raises:
        InvalidConfig: `text` is not a condition.
    """
    return tuple(_part(part, text) for part in text.split("&&"))


def _part(text: str, whole: str) -> Part:
    found = re.match(_PART, text)
    try:
        value = float(found["value"]) if found else math.nan
    except ValueError:
        value = math.nan
    if found is None or not math.isfinite(value):
        raise InvalidConfig(f"{whole!r} is not a condition on a metric.", _FORM)
    return Part(found["metric"], found["op"], value, int(found["index"] or 0))


def check(conditions: Iterable[str]) -> None:
    """Check stop conditions.

    Raises:
        InvalidConfig: one is not a condition, or they are too many.
    """
    found = [parse(text) for text in conditions]
    if len(found) > MAX_CONDITIONS:
        raise InvalidConfig(f"A run can have at most {MAX_CONDITIONS} stop conditions.")


class Watch:
    """Compares the values that one run sends, in order, with its conditions.

    Args:
        conditions: alternatives.
    """

    def __init__(self, conditions: Iterable[str]) -> None:
        self._conditions = {text: parse(text) for text in conditions}
        self._latest: dict[tuple[str, int], float] = {}  # by metric and the index from which it counts

    def met(self, metric: str, step: int, value: float) -> str:
        """The condition that the next value meets, with the values that meet it; "" for none."""
        for text, parts in self._conditions.items():
            for part in parts:
                if part.metric == metric and step >= part.min_index:
                    self._latest[metric, part.min_index] = value
            found = [self._latest.get((part.metric, part.min_index)) for part in parts]
            if all(value is not None and part.holds(value) for part, value in zip(parts, found, strict=True)):
                values = ", ".join(f"{part.metric} is {value:g}" for part, value in zip(parts, found, strict=True))
                return f"{text} ({values})"
        return ""
