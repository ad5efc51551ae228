"""What the API answers of searches over parameters. As in `orchestrator.records`: frozen, printed by `--json`, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.records import from_wire


@dataclass(frozen=True, slots=True)
class SearchCastRecord:
    """The answer to casting a search: its number, and what to tell the person."""

    number: int
    warnings: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSummary:
    """A line of `spell hyper list`.

    Attributes:
        command: with its parameters not filled in.
        metric: what is to be best; "" where nothing is compared.
        trials_complete, trials_cast, trials_count: how many are complete, were cast, and there will be.
        best_run, best_value: the run of the best trial so far, and its value.
        message: what is to be said of its end.
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
        value: of the metric; None where none was sent, or the trial does not count.
        message: why it is in this state; "" where there is nothing to say.
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
    """All that is known of one search.

    Attributes:
        space: what each parameter may be: `values`, or `low`, `high`, `scaling` and `number`.
        parallel: how many trials may wait or run at a time.
        seed: of the chosen numbers.
        reuse: whether a trial takes an identical run that is complete.
        trials: those that were cast, in their order.
    """

    space: dict[str, Any]
    parallel: int
    seed: int
    reuse: bool
    trials: list[TrialRecord]


def search_from_wire(body: Mapping[str, Any]) -> SearchRecord:
    """The record in a JSON object."""
    trials = [from_wire(TrialRecord, trial) for trial in body["trials"]]
    return from_wire(SearchRecord, {**body, "trials": trials})
