"""Searches over parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.records import from_wire


@dataclass(frozen=True, slots=True)
class SearchCastRecord:
    """A search that was cast: its number, and warnings for the person."""

    number: int
    warnings: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSummary:
    """A line of `spell hyper list`.

    Attributes:
        command: with placeholders for its parameters.
        metric: the metric to optimise; "" for none.
        trials_complete, trials_cast, trials_count: the numbers of trials that are complete, were cast, and will exist.
        best_run, best_value: the run of the best trial so far, and its value.
        message: a sentence about its end; "" for none.
    """

    number: int
    kind: str
    state: str
    wish: str | None
    command: str
    metric: str
    metric_agg: str
    direction: str
    trials_complete: int
    trials_cast: int
    trials_count: int
    best_run: int | None
    best_value: float | None
    created_at: float
    ended_at: float | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial of a search.

    Attributes:
        state: that of its run; without one `waiting`, or `failed`: it could not be cast.
        value: of the metric; None if the run did not send it, or the trial does not count.
        message: the reason for its state; "" for none.
    """

    number: int
    run: int | None
    state: str
    params: dict[str, str]
    value: float | None
    exit_code: int | None
    signal: int | None
    duration_s: float | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRecord(SearchSummary):
    """The record of one search.

    Attributes:
        space: the values of each parameter: `values`, or `low`, `high`, `scaling` and `number`.
        parallel: the number of trials that may wait or run at the same time.
        seed: of the random numbers.
        reuse: whether a trial uses an identical complete run.
        samplers: what chose the values of a bayesian search, by the number of the first trial that it chose.
        trials: those that were cast, in their order.
    """

    space: dict[str, Any]
    parallel: int
    seed: int
    reuse: bool
    samplers: dict[str, str]
    trials: list[TrialRecord]


def search_from_wire(body: Mapping[str, Any]) -> SearchRecord:
    """The record in a JSON object."""
    trials = [from_wire(TrialRecord, trial) for trial in body["trials"]]
    return from_wire(SearchRecord, {**body, "trials": trials})
