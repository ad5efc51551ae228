"""Filters and order of a list of runs, as client and server both read them.

SORT   := [ "-" ] KEY      KEY := "number" | "duration" | "metric:" NAME
METRIC := as a stop condition without MIN_INDEX: `loss < 0.5`, `loss < 0.5 && accuracy > 0.9`; of the latest value
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import InvalidConfig, UsageError
from orchestrator.spec.conditions import Part, parse
from orchestrator.spec.type_checks import check_types

MAX_SKIP = 1_000_000
_MOST_TEXT = 1000
_METRIC = "metric:"


@dataclass(frozen=True, slots=True)
class Sort:
    """The order of a list.

    Attributes:
        key: `number`, `duration` or `metric`; runs without this value are left out.
        metric: name of the metric when `key` is `metric`; its latest value counts.
        is_descending: whether the smallest comes last, instead of the largest.
    """

    key: str = "number"
    metric: str = ""
    is_descending: bool = False


def parse_sort(text: str) -> Sort:
    """Parse a sort key; "" sorts by number.

    Raises:
        UsageError: `text` is not a sort key.
    """
    key = text.removeprefix("-")
    is_descending = key != text
    if key in ("", "number", "duration"):
        return Sort(key or "number", "", is_descending)
    if key.startswith(_METRIC) and key != _METRIC:
        return Sort("metric", key.removeprefix(_METRIC), is_descending)
    raise UsageError(
        f"Runs cannot be sorted by {text!r}.",
        "Sort by number, duration or metric:NAME; with a '-' before it the smallest comes last.",
    )


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on the runs of a list; a run must meet all of them.

    Attributes:
        states, labels, machine_types: the run has one of each.
        name: its exact name.
        project: its project, in any case.
        since: the earliest time of its cast, in seconds since the epoch.
        metrics: conditions on latest values, see above.
        text: each is in its command or description, in any case of A to Z.
        archived: whether it is archived.
    """

    states: Sequence[str] = ()
    labels: Sequence[str] = ()
    machine_types: Sequence[str] = ()
    name: str = ""
    project: str = ""
    since: float = 0.0
    metrics: Sequence[str] = ()
    text: Sequence[str] = ()
    archived: bool = False

    def __post_init__(self) -> None:
        """Check the filter.

        Raises:
            InvalidConfig, UsageError: a value is not allowed.
        """
        check_types(self)
        self.parts()
        if not math.isfinite(self.since):
            raise UsageError("A time must be a finite number of seconds since the epoch.")
        for text in self.text:
            if not text.strip():
                raise UsageError("The text to search for is empty.", "Try: spell search TEXT")
            if len(text) > _MOST_TEXT:
                raise UsageError(f"A text to search for can have at most {_MOST_TEXT} characters.")

    def parts(self) -> list[Part]:
        """The comparisons of `metrics`."""
        cure = "Write it as METRIC OP VALUE, with <, <=, > or >=: 'loss < 0.5'."
        try:
            found = [part for text in self.metrics for part in parse(text)]
        except InvalidConfig as error:
            raise InvalidConfig(error.message, cure) from None
        if any(part.min_index for part in found):
            raise InvalidConfig("A filter compares the latest value of a metric and takes no MIN_INDEX.", cure)
        return found
