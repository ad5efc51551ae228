"""Chooses the next trial of a bayesian search, by the tree-structured Parzen estimator of Optuna.

Nothing is kept between two calls: each call makes a new study from the trials so far. Its seed is
made of that of the search and the number of the trial. So the same trials lead to the same next one in every process,
as long as the version of Optuna is the same.

Bergstra et al., Algorithms for Hyper-Parameter Optimization (2011);
https://optuna.readthedocs.io/en/stable/reference/samplers/generated/optuna.samplers.TPESampler.html
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.spec.search import Choice, Range, SearchSpec

_SEEDS = 1 << 32
_OPTIONS: dict[str, Any] = {"n_ei_candidates": 24, "multivariate": True, "group": False, "constant_liar": True}
"""Options of the sampler, all named, as their defaults change with versions: `multivariate` and `constant_liar` did with 5.
Those that go away with 6 have their defaults."""
SAMPLER = (
    f"TPESampler({', '.join(f'{name}={value}' for name, value in _OPTIONS.items())}) of optuna {optuna.__version__}"
)
"""What decides the trials, besides the seed; kept with each search."""
_FEWEST_AT_RANDOM, _MOST_AT_RANDOM = 3, 10


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial so far.

    Attributes:
        params: as in its command.
        value: of the metric; None if the trial has none.
        is_running: whether it may still get a value.
    """

    params: Mapping[str, str]
    value: float | None
    is_running: bool = False


def suggest(search: SearchSpec, number: int, tried: Sequence[Tried]) -> dict[str, str]:
    """The parameters of a trial. The first third (3 to 10 trials) is chosen at random.

    Args:
        number: of the trial to choose.
        tried: the other trials.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {name: _distribution(values) for name, values in search.space.items()}
    seed = random.Random(f"{search.seed}:{number}").randrange(_SEEDS)  # noqa: S311 - no secret depends on it
    at_random = max(_FEWEST_AT_RANDOM, min(_MOST_AT_RANDOM, search.count // 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=at_random, **_OPTIONS)
        study = optuna.create_study(sampler=sampler, direction=StudyDirection[search.direction.upper()])
        for item in tried:
            study.add_trial(_trial(search, distributions, item))
        found = study.ask(distributions).params
    return {name: _text(values, found[name]) for name, values in search.space.items()}


def _trial(search: SearchSpec, distributions: dict[str, BaseDistribution], item: Tried) -> FrozenTrial:
    ended = TrialState.FAIL if item.value is None else TrialState.COMPLETE
    return optuna.create_trial(
        state=TrialState.RUNNING if item.is_running else ended,
        params={name: _point(values, item.params[name]) for name, values in search.space.items()},
        distributions=distributions,
        value=None if item.is_running else item.value,
    )


def _distribution(values: Choice | Range) -> BaseDistribution:
    if isinstance(values, Choice):
        return optuna.distributions.CategoricalDistribution(values.values)
    is_log = values.scaling != "linear"
    if values.number == "int":
        return optuna.distributions.IntDistribution(int(values.low), int(values.high), log=is_log)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=is_log)


def _text(values: Choice | Range, point: Any) -> str:
    return point if isinstance(values, Choice) else values.text(values.mirrored(point))


def _point(values: Choice | Range, text: str) -> Any:
    if isinstance(values, Choice):
        return text
    point = values.clamped(values.mirrored(float(text)))  # rounding may put the mirrored end outside the range
    return round(point) if values.number == "int" else point
