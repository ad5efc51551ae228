"""Metrics of runs."""

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
    """A summary of one metric of a run."""

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
    """A page of the values that a run has sent, in order.

    Attributes:
        values: at most the requested number.
        next: the position of the next page.
        over: whether the run has ended, and this is the last page.
    """

    values: list[MetricRecord]
    next: int
    over: bool


def page_from_wire(words: Mapping[str, Any]) -> MetricPage:
    """Read a page of values."""
    return from_wire(MetricPage, {**words, "values": [from_wire(MetricRecord, item) for item in words["values"]]})
