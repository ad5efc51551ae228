"""What the API answers about the metrics of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.records import from_wire


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """One value that a run sent."""

    run: int
    name: str
    step: int
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """All that a run has sent of one metric, in a line."""

    run: int
    name: str
    count: int
    step: int
    last: float
    least: float
    most: float
    mean: float


@dataclass(frozen=True, slots=True)
class MetricPage:
    """Some of the values that a run has sent, in order.

    Attributes:
        values: at most as many as were asked for.
        next: where the next page begins.
        over: whether no more will come: the run has ended, and this is all.
    """

    values: list[MetricRecord]
    next: int
    over: bool


def page_from_wire(words: Mapping[str, Any]) -> MetricPage:
    """Read a page of values."""
    return from_wire(MetricPage, {**words, "values": [from_wire(MetricRecord, item) for item in words["values"]]})
