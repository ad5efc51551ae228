"""Which runs a list shows, and in which order: the same words on both sides of the wire.

SORT   := [ "-" ] KEY      KEY := "number" | "duration" | "metric:" NAME
METRIC := as a stop condition without MIN_INDEX: `loss < 0.5`, `loss < 0.5 && accuracy > 0.9`; of the latest value
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import InvalidConfig, UsageError
from orchestrator.spec.conditions import Part, parse

MAX_SKIP = 1_000_000
_MOST_TEXT = 1000
_METRIC = "metric:"


@dataclass(frozen=True, slots=True)
class Sort:
    """The order of a list.

    Attributes:
        key: `number`, `duration` or `metric`; runs that have no such value are left out.
        metric: whose latest value counts, with `metric`.
        is_descending: the smallest comes last, instead of the largest.
    """

    key: str = "number"
    metric: str = ""
    is_descending: bool = False


def parse_sort(text: str) -> Sort:
    """A sort key as typed; the newest comes last for "".

    Raises:
        UsageError: when it is none.
    """
    key = text.removeprefix("-")
    is_descending = key != text
    if key in ("", "number", "duration"):
        return Sort(key or "number", "", is_descending)
    if key.startswith(_METRIC) and key != _METRIC:
        return Sort("metric", key.removeprefix(_METRIC), is_descending)
    raise UsageError(
        f"Runs cannot be sorted by {text!r}.",
        "There are: number, duration and metric:NAME; with a '-' before it the smallest comes last.",
    )


@dataclass(frozen=True, slots=True)
class Filter:
    """What runs of a list have in common: all that is given here.

    Attributes:
        states, labels, machine_types: one of these each.
        name: exactly this.
        project: this one, in whatever case.
        since: cast at this time or later, in seconds since the epoch.
        metrics: conditions on latest values, see above.
        text: each of these is somewhere in the command or the description, in whatever case of A to Z.
        archived: those that are archived, instead of those that are not.
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
        """See that it can be asked.

        Raises:
            InvalidConfig, UsageError: otherwise.
        """
        self.parts()
        if not math.isfinite(self.since):
            raise UsageError("A time is a finite number of seconds since the epoch.")
        for text in self.text:
            if not text.strip():
                raise UsageError("There is nothing to look for.", "Try: spell search TEXT")
            if len(text) > _MOST_TEXT:
                raise UsageError(f"A text to look for has {_MOST_TEXT} characters at most.")

    def parts(self) -> list[Part]:
        """The comparisons of `metrics`."""
        cure = "Write it as METRIC OP VALUE, with <, <=, > or >=: 'loss < 0.5'."
        try:
            found = [part for text in self.metrics for part in parse(text)]
        except InvalidConfig as error:
            raise InvalidConfig(error.message, cure) from None
        if any(part.min_index for part in found):
            raise InvalidConfig("Runs are found by the latest value of a metric, whatever its index.", cure)
        return found
