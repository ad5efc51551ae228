"""What the API answers of runs that are watched. As in `orchestrator.records`: frozen, printed by `--json`, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.records import from_wire
from orchestrator.records.runs import MetricRecord


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


@dataclass(frozen=True, slots=True)
class LogTime:
    """When a run's log had grown to a size.

    Attributes:
        offset: bytes of the log that were written by then.
        at: seconds since the epoch.
    """

    offset: int
    at: float


def page_from_wire(words: Mapping[str, Any]) -> MetricPage:
    """Read a page of values."""
    return from_wire(MetricPage, {**words, "values": [from_wire(MetricRecord, item) for item in words["values"]]})
