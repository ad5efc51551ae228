"""What a search tries: parameters as typed, and the values that its trials get."""

from __future__ import annotations

import inspect
import math
import random
import re
from collections.abc import Sequence
from typing import Any

import optuna
import pytest

from orchestrator.controllers.bayesian import SAMPLER, Tried, suggest
from orchestrator.errors import InvalidConfig, SpellError, UsageError
from orchestrator.spec.run import RunSpec, to_wire
from orchestrator.spec.search import Choice, Range, SearchSpec, Space, parse_space
from orchestrator.spec.validate import read_search

DRAWS = 4000


def search(kind: str, space: Space, **fields: Any) -> SearchSpec:
    """A search whose command has all these parameters."""
    command = " ".join(f":{name}:" for name in space)
    spec = RunSpec(f"echo {command}", params=dict.fromkeys(space, "1"))
    return SearchSpec(kind=kind, spec=spec, space=space, **fields)


def drawn(text: str) -> list[float]:
    """Many numbers of a range, as typed."""
    values = parse_space([f"x={text}"], [])["x"]
    generator = random.Random(7)
    return [float(values.draw(generator)) for _ in range(DRAWS)]


def share(numbers: Sequence[float], low: float, high: float) -> float:
    return sum(low <= number < high for number in numbers) / len(numbers)


# -- as typed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.1,1e-2", Choice(("0.1", "1e-2"))),
        ("adam", Choice(("adam",))),
        ("a=b,c", Choice(("a=b", "c"))),
        ("ä b,'c", Choice(("ä b", "'c"))),
        ("http://x,y", Choice(("http://x", "y"))),
        ("s3:x", Choice(("s3:x",))),
        ("1:2,3", Choice(("1:2", "3"))),
        ("0:1", Range(0, 1)),
        ("-1.5:1e3", Range(-1.5, 1000)),
        ("1e-4:1:log", Range(1e-4, 1, "log")),
        ("1:9:int", Range(1, 9, "linear", "int")),
        ("1:9:log:int", Range(1, 9, "log", "int")),
        ("1:9:int:reverse_log", Range(1, 9, "reverse_log", "int")),
        ("1:9:linear:float", Range(1, 9)),
        ("[0.1,0.2]", Choice(("0.1", "0.2"))),
        ("[adam, 'sgd']", Choice(("adam", "sgd"))),
        ("[[1,2],[3]]", Choice(("[1,2]", "[3]"))),
        ("0.1, 0.2", Choice(("0.1", "0.2"))),
        ("choice(1,2)", Choice(("1", "2"))),
        ("tune.choice([1, 2])", Choice(("1", "2"))),
        ("uniform(0, 1)", Range(0, 1)),
        ("tune.loguniform(1e-5, 1e-2)", Range(1e-5, 1e-2, "log")),
        ("resnet(18)", Choice(("resnet(18)",))),
        ("1e-5", Choice(("1e-5",))),
        ("1-2,3-4", Choice(("1-2", "3-4"))),
        ("2026-11-30", Choice(("2026-11-30",))),
    ],
)
def test_parameters_as_typed(text: str, found: Choice | Range) -> None:
    assert parse_space([f"lr={text}"], []) == {"lr": found}


def test_json_values_stand_as_they_are_written() -> None:
    text = 'x=["a,b", "", 2, 1e-3, 12345678901234567890, true, null, [1, "ü"], "12:30"]'
    values = ("a,b", "", "2", "1e-3", "12345678901234567890", "true", "null", '["1","ü"]', "12:30")
    found = parse_space([], [text])["x"]
    assert isinstance(found, Choice)
    assert found.values[:7] + found.values[8:] == values[:7] + values[8:]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr", "--param 'lr' is not of the form NAME=VALUES."),
        ("=1,2", "is not of the form NAME=VALUES."),
        ("lr=", "Parameter 'lr': It has no value."),
        ("lr=1,,2", "'1,,2' has an empty value."),
        ("lr=1,", "has an empty value."),
        ("lr=1,2,1", "The value '1' is given twice."),
        ("lr=3:1", "The range 3:1 is empty: MIN must be less than MAX."),
        ("lr=1:1", "The range 1:1 is empty"),
        ("lr=0:1:log", "The range 0:1 cannot be scaled by log: MIN must be more than 0."),
        ("lr=-1:1:reverse_log", "cannot be scaled by reverse_log"),
        ("lr=0.5:3:int", "has integers only, so MIN and MAX must be integers."),
        ("lr=1:2:logg", "'1:2:logg' is not like MIN:MAX"),
        ("lr=1:2:log:linear", "is not like MIN:MAX"),
        ("lr=1:2:int:log:int", "is not like MIN:MAX"),
        ("lr=1:", "is not like MIN:MAX"),
        ("lr=:1", "is not like MIN:MAX"),
        ("lr=1:x", "is not like MIN:MAX"),
        ("lr=0:inf", "is not finite"),
        ("lr=nan:1", "is not finite"),
        ("lr=f(1,2),3", "has commas inside brackets"),
        ("lr={0.1,0.2}", "has commas inside brackets"),
        ("lr=[1,2],[3,4]", "is not a list of values"),
        ("lr=[]", "is not a list of values"),
        ("lr=randint(1,8)", "'randint(1,8)' is not read"),
        ("lr=hp.uniform('lr', 0, 1)", "is not read"),
        ("lr=loguniform(-5,-2)", "cannot be scaled by log"),
        ("lr=-1e308:1e308", "is not finite"),
        *(
            (f"lr={text}", "is one text, no range")
            for text in ("1..5", "0.1-0.5", "-1--.5", "1e-5–1e-2", "0.1 0.2", "0;1")
        ),
        *((f"lr={text}", "is one text, no range") for text in ("min=0,max=1", "low: 0, high: 1", "0 to 1")),
    ],
)
def test_parameters_that_make_no_sense(text: str, words: str) -> None:
    if text == "lr=1:2:int:log:int":  # five parts are no range: a value with colons
        assert parse_space([text], []) == {"lr": Choice(("1:2:int:log:int",))}
        return
    with pytest.raises(InvalidConfig) as caught:
        parse_space([text], [])
    assert words in caught.value.message and (caught.value.cure or text in ("lr", "=1,2"))


@pytest.mark.parametrize("text", ["x=", "x=[]", "x=3", "x={}", "x=[1", 'x=["a","a"]', "x=" + "[" * 100_000])
def test_json_that_is_no_list_of_values(text: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_space([], [text])


def test_a_parameter_is_given_once() -> None:
    with pytest.raises(InvalidConfig, match="given twice"):
        parse_space(["x=1"], ["x=[2]"])


def test_every_option_of_the_sampler_is_named() -> None:
    """Those without a name here have gone away with the next version, or are not options of how values are chosen."""
    going = {"consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints", "gamma", "weights"}
    going |= {"warn_independent_sampling", "constraints_func", "categorical_distance_func"}
    there = set(inspect.signature(optuna.samplers.TPESampler).parameters)
    named = {"seed", "n_startup_trials", *re.findall(r"(\w+)=", SAMPLER)}
    assert named <= there <= named | going
    assert SAMPLER.endswith(f" of optuna {optuna.__version__}")


# -- the values of a trial --------------------------------------------------------------------------------------------


def test_a_grid_has_each_combination_once() -> None:
    grid = search("grid", {"a": Choice(("1", "2")), "b": Choice(("x", "y", "z")), "c": Choice(("k",))})
    found = [tuple(grid.params(number).values()) for number in range(1, grid.count + 1)]
    assert found == [(a, b, "k") for a in "12" for b in "xyz"]


def test_numbers_are_within_their_range_and_as_scaled() -> None:
    linear, log, mirrored = drawn("1:1001"), drawn("0.001:1:log"), drawn("0.001:1:reverse_log")
    assert share(linear, 1, 501) == pytest.approx(0.5, abs=0.05)
    for decade in (0.001, 0.01, 0.1):
        assert share(log, decade, decade * 10) == pytest.approx(1 / 3, abs=0.05)
    assert share(mirrored, 1.001 - 0.01, 1.1) == pytest.approx(1 / 3, abs=0.05)
    assert share(mirrored, 0, 1.001 - 0.1) == pytest.approx(1 / 3, abs=0.05)
    for numbers, low, high in ((linear, 1, 1001), (log, 0.001, 1), (mirrored, 0.001, 1)):
        assert all(low <= number <= high for number in numbers)


@pytest.mark.parametrize("scaling", ["linear", "log", "reverse_log"])
def test_integers_reach_both_ends(scaling: str) -> None:
    numbers = drawn(f"1:4:int:{scaling}")
    assert set(numbers) == {1, 2, 3, 4}
    if scaling == "linear":
        assert all(share(numbers, value, value + 1) == pytest.approx(0.25, abs=0.04) for value in (1, 2, 3, 4))


def test_a_number_reads_back_as_the_same() -> None:
    span = Range(1e-7, 1.0)
    for value in (0.1, 1 / 3, 1e-7, 5e-6, 1.0):
        assert float(span.text(value)) == value
    assert (span.text(2), span.text(-1), Range(1, 9, number="int").text(2.4)) == ("1.0", "1e-07", "2")


def test_a_seed_says_what_is_tried() -> None:
    space = {"x": Range(0, 1), "y": Choice(("a", "b", "c"))}
    first, again, other = (search("random", space, runs=9, seed=seed) for seed in (1, 1, 2))
    numbers = range(1, 10)
    assert [first.params(number) for number in numbers] == [again.params(number) for number in reversed(numbers)][::-1]
    assert [first.params(number) for number in numbers] != [other.params(number) for number in numbers]
    assert len({first.params(number)["x"] for number in numbers}) == 9


# -- the whole of it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "space", "fields", "error"),
    [
        ("grid", {"x": Range(0, 1)}, {}, InvalidConfig),
        ("grid", {"x": Choice(("1",))}, {"runs": 3}, UsageError),
        ("grid", {name: Choice(tuple(map(str, range(30)))) for name in "abc"}, {}, InvalidConfig),
        ("grid", {}, {}, UsageError),
        ("random", {"x": Range(0, 1)}, {}, UsageError),
        ("random", {"x": Range(0, 1)}, {"runs": -1}, UsageError),
        ("random", {"x": Range(0, 1)}, {"runs": 10_001}, InvalidConfig),
        ("random", {"x": Range(0, 1)}, {"runs": 1, "parallel": -1}, UsageError),
        ("bayesian", {"x": Range(0, 1)}, {"runs": 1}, UsageError),
        ("bayesian", {"x": Range(0, 1)}, {"runs": 1, "metric": "m", "direction": "up"}, InvalidConfig),
        ("bayesian", {"x": Range(0, 1)}, {"runs": 1, "metric": "m", "metric_agg": "sum"}, InvalidConfig),
        ("annealing", {"x": Range(0, 1)}, {"runs": 1}, InvalidConfig),
    ],
)
def test_searches_that_make_no_sense(kind: str, space: Space, fields: dict[str, Any], error: type[SpellError]) -> None:
    with pytest.raises(error):
        search(kind, space, **fields)


def test_a_search_goes_over_the_wire() -> None:
    space = {"x": Range(0.5, 1, "log"), "n": Range(1, 3, number="int"), "c": Choice(("a,b", ""))}
    for spec in (search("random", space, runs=3, seed=4), search("bayesian", space, runs=3, metric="m", parallel=2)):
        assert read_search(to_wire(spec)) == spec


# -- bayesian ---------------------------------------------------------------------------------------------------------


def best_of(spec: SearchSpec, value: Any) -> float:
    """Try all trials of a search, one after another. Returns the best value."""
    tried: list[Tried] = []
    for number in range(1, spec.count + 1):
        params = suggest(spec, number, tried) if spec.kind == "bayesian" else spec.params(number)
        tried.append(Tried(params, value(params)))
    values = [item.value for item in tried if item.value is not None]
    return max(values) if spec.direction == "maximize" else min(values)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_bayesian_finds_a_better_value_than_random(direction: str) -> None:
    sign = 1 if direction == "minimize" else -1
    space = {"x": Range(-10, 10), "lr": Range(1e-6, 1, "log")}

    def value(params: dict[str, str]) -> float:
        return sign * ((float(params["x"]) - 3) ** 2 + (math.log10(float(params["lr"])) + 3) ** 2)

    def best(kind: str, seed: int) -> float:
        return sign * best_of(search(kind, space, runs=40, metric="loss", direction=direction, seed=seed), value)

    seeds = range(3)
    assert sum(best("bayesian", seed) for seed in seeds) < sum(best("random", seed) for seed in seeds) / 2


def test_bayesian_depends_on_nothing_but_its_trials() -> None:
    space = {"x": Range(1, 100, "reverse_log"), "n": Range(1, 8, "log", "int"), "c": Choice(("a", "b"))}
    spec = search("bayesian", space, runs=30, metric="loss", seed=3)
    tried = [Tried(suggest(spec, number, []), number / 7) for number in range(1, 13)]
    tried += [Tried(suggest(spec, 13, []), None), Tried(suggest(spec, 14, []), None, is_running=True)]
    found = suggest(spec, 15, tried)
    assert found == suggest(spec, 15, tried)
    assert found != suggest(spec, 15, tried[:3])
    assert 1 <= float(found["x"]) <= 100
    assert found["n"] in set("12345678")
    assert found["c"] in ("a", "b")


def test_trials_of_a_batch_are_not_the_same() -> None:
    spec = search("bayesian", {"x": Range(0, 1)}, runs=30, metric="loss", seed=3)
    tried = [Tried({"x": repr(number / 12)}, (number / 12 - 0.3) ** 2) for number in range(12)]
    for number in range(13, 17):
        tried.append(Tried(suggest(spec, number, tried), None, is_running=True))
    batch = [item.params["x"] for item in tried[12:]]
    assert len(set(batch)) == 4
