"""Searches over parameters: the values of each parameter, and those that a trial gets. Nothing here reads or writes.

A parameter is written `NAME=V1,V2,…` (these values, literally) or `NAME=MIN:MAX[:linear|log|reverse_log][:int|float]` (any
number between, both ends included). What other tools write and is plain is read, too: `[V1,V2]`, `choice(V1,V2)`,
`uniform(MIN,MAX)`, `loguniform(MIN,MAX)`; the other functions of such tools are refused.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import InvalidConfig, UsageError
from orchestrator.spec.pasted import DASHES
from orchestrator.spec.run import RunSpec

GRID, RANDOM, BAYESIAN = KINDS = ("grid", "random", "bayesian")
SCALINGS = ("linear", "log", "reverse_log")
NUMBERS = ("float", "int")
AGGREGATES = ("avg", "min", "max", "last")
DIRECTIONS = ("minimize", "maximize")
MAX_TRIALS = 10_000
MAX_SEED = (1 << 63) - 1
_AT_ONCE = {GRID: 100, RANDOM: 100, BAYESIAN: 1}
_CALL = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*)\((.*)\)", re.DOTALL)
_SCALED = {"uniform": "linear", "loguniform": "log"}
_OTHERS = frozenset(
    {
        *("randint", "quniform", "qloguniform", "lograndint", "qrandint", "normal", "randn", "lognormal", "uniformint"),
        *(
            "log_uniform",
            "log_uniform_values",
            "q_uniform",
            "grid_search",
            "sample_from",
            "range",
            "linspace",
            "logspace",
        ),
        *(
            "arange",
            "interval",
            "int_uniform",
            "pchoice",
            "suggest_float",
            "suggest_int",
            "suggest_categorical",
            "truncnorm",
        ),
    }
)
"""Functions of Ray Tune, Hyperopt, W&B, Hydra and NumPy whose ends or scales differ between them."""
_EMPTY = 'Write it as NAME=V1,V2; an empty value is written --json-param NAME=\'["", "a"]\''
_LITERALLY = 'List values as NAME=V1,V2; those with commas in them as --json-param NAME=\'["f(a,b)", "c"]\''
_RANGE = "MIN:MAX[:linear|log|reverse_log][:int|float]"
_N = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_JOINED = re.compile(rf"({_N})(?:\s*(?:\.{{2,3}}|[-~{DASHES}])\s*|\s*;\s*|\s+(?:to\s+)?)({_N})")
"""Two numbers as a range is written elsewhere: `0..1`, `0-1`, `0 1`, `0 to 1`."""
_ENDS = re.compile(rf"(?:min|low)\w*\s*[=:]\s*({_N})[\s,;]+(?:max|high)\w*\s*[=:]\s*({_N})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these values, put into the command literally."""

    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise InvalidConfig("The parameter has no values.", "Write it as NAME=V1,V2")
        if len(set(self.values)) < len(self.values):
            twice = next(value for at, value in enumerate(self.values) if value in self.values[:at])
            raise InvalidConfig(f"The value {twice!r} is given twice.", "Leave one of them out.")

    def draw(self, generator: random.Random) -> str:
        """One of the values, all equally likely."""
        return generator.choice(self.values)


@dataclass(frozen=True, slots=True)
class Range:
    """Any number from `low` to `high`, both included.

    Attributes:
        scaling: `log` tries as many numbers from 0.001 to 0.01 as from 0.01 to 0.1; `reverse_log` is its mirror image,
            fine near `high`.
        number: `float` or `int`.
    """

    low: float
    high: float
    scaling: str = "linear"
    number: str = "float"

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "low", float(self.low))  # JSON may have an int
            object.__setattr__(self, "high", float(self.high))
        except OverflowError:
            raise InvalidConfig("The ends of a range must be numbers up to 1.8e308.", "Choose closer ends.") from None
        shown = f"{self.low:g}:{self.high:g}"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and math.isfinite(self.high - self.low)):
            raise InvalidConfig(f"The range {shown} is not finite.", f"Write two numbers: {_RANGE}")
        if self.low >= self.high:
            cure = (
                f"Write it as {self.high:g}:{self.low:g}" if self.low > self.high else f"Write one value: {self.low:g}"
            )
            raise InvalidConfig(f"The range {shown} is empty: MIN must be less than MAX.", cure)
        if self.scaling not in SCALINGS or self.number not in NUMBERS:
            raise InvalidConfig(f"The range {shown} is not like {_RANGE}.", "Both words may be left out.")
        if self.scaling != "linear" and self.low <= 0:
            raise InvalidConfig(
                f"The range {shown} cannot be scaled by {self.scaling}: MIN must be more than 0.",
                f"Begin it with a small number, 1e-06:{self.high:g}, or list values.",
            )
        if self.number == "int" and not (self.low.is_integer() and self.high.is_integer()):
            raise InvalidConfig(
                f"The range {shown} has integers only, so MIN and MAX must be integers.",
                "Round them, or leave out ':int' for other numbers.",
            )

    def draw(self, generator: random.Random) -> str:
        """A number of the range, distributed as its scaling says."""
        margin = 0.5 if self.number == "int" else 0.0  # so that both ends are as likely as other integers
        low, high = self.low - margin, self.high + margin
        at = generator.random()
        if self.scaling == "linear":
            return self.text(low + (high - low) * at)
        return self.text(self.mirrored(math.exp(math.log(low) + (math.log(high) - math.log(low)) * at)))

    def mirrored(self, value: float) -> float:
        """With `reverse_log` the number at the same distance from the other end, to be scaled by log; else `value`."""
        return self.low + self.high - value if self.scaling == "reverse_log" else value

    def clamped(self, value: float) -> float:
        """The number of the range that is closest to `value`."""
        return min(max(value, self.low), self.high)

    def text(self, value: float) -> str:
        """A number as it is put into the command: the shortest text that reads back as the same number."""
        inside = self.clamped(value)
        return str(round(inside)) if self.number == "int" else repr(inside)


Space = Mapping[str, Choice | Range]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpec:
    """A request for one search.

    Attributes:
        kind: `grid`, `random` or `bayesian`.
        spec: the spec of each trial; the values of its `params` are replaced.
        space: the values of each parameter; exactly the parameters of `spec`.
        runs: number of trials; 0 for a grid, which tries every combination.
        parallel: number of trials that may wait or run at the same time; 0 for the default (100; bayesian: 1).
        metric: the metric to optimise; "" to compare nothing.
        metric_agg: how the values of a trial become one: `avg`, `min`, `max` or `last`.
        direction: `minimize` or `maximize`.
        seed: seed of the random numbers; None for any.
        reuse: whether a trial takes an identical complete run instead of casting a new one.
    """

    kind: str
    spec: RunSpec
    space: Space
    runs: int = 0
    parallel: int = 0
    metric: str = ""
    metric_agg: str = "last"
    direction: str = "minimize"
    seed: int | None = None
    reuse: bool = False

    def __post_init__(self) -> None:
        _check_word("kind of search", self.kind, KINDS)
        _check_word("way to aggregate a metric", self.metric_agg, AGGREGATES)
        _check_word("direction", self.direction, DIRECTIONS)
        if set(self.space) != set(self.spec.params):
            raise InvalidConfig(
                "A search must have exactly the parameters of its spec.", "Write :NAME: in the command for each."
            )
        if self.direction != DIRECTIONS[0] and not self.metric:
            raise UsageError("Option --direction needs a metric.", "Name it with: --metric METRIC")
        if not self.space:
            raise UsageError("A search needs a parameter.", "Write :NAME: in the command, and --param NAME=V1,V2")
        if self.kind == BAYESIAN and not self.metric:
            raise UsageError("A bayesian search needs a metric to optimise.", "Name it with: --metric METRIC")
        if self.kind == GRID:
            self._check_grid()
        elif self.runs <= 0:
            raise UsageError(f"A {self.kind} search needs a number of runs.", "Give it with: -n 20")
        if self.count > MAX_TRIALS:
            raise InvalidConfig(
                f"This search would cast {self.count:,} runs; the limit is {MAX_TRIALS:,}.",
                "Give fewer values, or try some of them with: spell hyper random -n 100",
            )
        if self.seed is not None and abs(self.seed) > MAX_SEED:
            raise InvalidConfig("The seed has more than 63 bits.", "Choose a smaller one: --seed 1")
        if not 0 <= self.parallel <= MAX_TRIALS:
            raise UsageError(
                f"{self.parallel} trials cannot run at the same time.", f"Give a number from 1 to {MAX_TRIALS:,}: -r 4"
            )

    def check_varies(self) -> None:
        """Refuse to try the same several times. Only a cast asks: a search that was cast before may go on."""
        fixed = {
            name: item.values[0]
            for name, item in self.space.items()
            if isinstance(item, Choice) and len(item.values) == 1
        }
        if self.runs > 1 and len(fixed) == len(self.space):
            name, value = next(iter(fixed.items()))
            raise InvalidConfig(
                f"Each trial would be the same: {name!r} has only one value, {value!r}.",
                f"Write --param {name}={_RANGE} for any number between, or --param {name}=V1,V2 for values.",
            )

    def _check_grid(self) -> None:
        if self.runs:
            raise UsageError(
                "A grid search takes no number of runs: it tries every combination.", "Leave the number out."
            )
        for name, values in self.space.items():
            if isinstance(values, Range):
                raise InvalidConfig(
                    f"Parameter {name!r} is a range, but a grid search needs values.",
                    f"List them, --param {name}=V1,V2, or try some with: spell hyper random -n 20",
                )

    @property
    def count(self) -> int:
        """The number of trials."""
        if self.kind != GRID:
            return self.runs
        return math.prod(len(values.values) for values in self.space.values() if isinstance(values, Choice))

    @property
    def at_once(self) -> int:
        """The number of trials that may wait or run at the same time."""
        return self.parallel or _AT_ONCE[self.kind]

    def params(self, number: int) -> dict[str, str]:
        """The parameters of a trial of a grid or random search; the same at each call.

        Args:
            number: 1 for the first. A grid goes through the values of its last parameter first.
        """
        if self.kind == GRID:
            return self._combination(number - 1)
        generator = random.Random(f"{self.seed}:{number}")  # noqa: S311 - no secret depends on it
        return {name: values.draw(generator) for name, values in self.space.items()}

    def _combination(self, rest: int) -> dict[str, str]:
        found = {}
        for name in reversed(list(self.space)):
            values = self.space[name]
            assert isinstance(values, Choice)
            rest, position = divmod(rest, len(values.values))
            found[name] = values.values[position]
        return {name: found[name] for name in self.space}


def parse_space(texts: Sequence[str], json_texts: Sequence[str]) -> dict[str, Choice | Range]:
    """Parameters as typed.

    Args:
        texts: `NAME=V1,V2` or `NAME=MIN:MAX…`.
        json_texts: `NAME=["a,b", 2]`.

    Raises:
        InvalidConfig: a parameter is not written so; the message names it.
    """
    found: dict[str, Choice | Range] = {}
    for option, text in [*(("--param", text) for text in texts), *(("--json-param", text) for text in json_texts)]:
        name, equals, words = text.partition("=")
        if not equals or not name:
            raise InvalidConfig(f"{option} {text!r} is not of the form NAME=VALUES.")
        if name in found:
            raise InvalidConfig(
                f"Parameter {name!r} is given twice.", f"Give all its values in one option: {name}=V1,V2"
            )
        try:
            found[name] = _parse(words) if option == "--param" else _parse_json(words)
        except InvalidConfig as error:
            raise InvalidConfig(f"Parameter {name!r}: {error.message}", error.cure) from None
    return found


def _parse(text: str) -> Choice | Range:
    if call := _CALL.fullmatch(text):
        return _parse_call(text, call[1].lower(), call[2])
    if text.startswith("[") and text.endswith("]"):
        return _parse_list(text)
    if ends := _JOINED.fullmatch(text.strip()) or _ENDS.fullmatch(text.strip()):
        raise _no_range(text, ends[1], ends[2])
    parts = text.split(":")
    if 1 < len(parts) <= 4 and "," not in text and any(_is_number(part) or not part.strip() for part in parts[:2]):
        return _parse_range(text, parts)
    values = [value.strip() for value in text.split(",")]
    if "" in values:
        raise InvalidConfig(f"{text!r} has an empty value." if text else "It has no value.", _EMPTY)
    if any(value.count(one) != value.count(other) for value in values for one, other in ("()", "[]", "{}")):
        raise InvalidConfig(f"{text!r} has commas inside brackets.", _LITERALLY)
    return Choice(tuple(values))


def _no_range(text: str, low: str, high: str) -> InvalidConfig:
    low, high = sorted((low, high), key=float)
    integers = ":int" if low.isdecimal() and high.isdecimal() else ""
    return InvalidConfig(
        f"{text!r} is one text, no range.",
        f"Any number between is {low}:{high}{integers}, these two values are {low},{high}, "
        f"and this text is --json-param NAME={shlex.quote(json.dumps([text], ensure_ascii=False))}",
    )


def _parse_call(text: str, name: str, inside: str) -> Choice | Range:
    """A distribution as other tools write it."""
    if name == "choice":
        return _parse_list(inside if inside.startswith("[") else f"[{inside}]")
    ends = [end.strip() for end in inside.split(",")]
    if name in _SCALED and len(ends) == 2 and all(map(_is_number, ends)):
        return Range(float(ends[0]), float(ends[1]), _SCALED[name])
    if name in _OTHERS or name in _SCALED:
        raise InvalidConfig(f"{text!r} is not read.", f"Write a range as {_RANGE}, or values as V1,V2")
    if "," in inside:
        raise InvalidConfig(f"{text!r} has commas inside brackets.", _LITERALLY)
    return Choice((text,))


def _parse_list(text: str) -> Choice:
    """`[0.1,0.2]`, `["a", "b"]` or `[adam, sgd]`."""
    with contextlib.suppress(InvalidConfig):
        return _parse_json(text)
    values = tuple(value.strip().strip("\"'") for value in text[1:-1].split(","))
    if "" in values or any(char in value for value in values for char in "()[]{}\"'"):
        raise InvalidConfig(f"{text!r} is not a list of values.", _LITERALLY)
    return Choice(values)


def _parse_range(text: str, parts: Sequence[str]) -> Range:
    words = parts[2:]
    scalings, numbers = [word for word in words if word in SCALINGS], [word for word in words if word in NUMBERS]
    known = len(scalings) <= 1 and len(numbers) <= 1 and len(scalings) + len(numbers) == len(words)
    if not known or not _is_number(parts[0]) or not _is_number(parts[1]):
        cure = "A value with a ':' is written --json-param NAME='[\"12:30\"]'"
        raise InvalidConfig(f"{text!r} is not like {_RANGE}.", cure)
    return Range(float(parts[0]), float(parts[1]), *(scalings or ["linear"]), *(numbers or ["float"]))


def _parse_json(text: str) -> Choice:
    try:
        values = json.loads(text, parse_int=_Number, parse_float=_Number)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{text!r} is not JSON: {error}.") from error
    if not isinstance(values, list) or not values:
        raise InvalidConfig(f"{text!r} is not a JSON list of values.", "Write it as NAME='[\"a,b\", 2]'")
    return Choice(tuple(str(value) if isinstance(value, str) else _json_text(value) for value in values))


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def _json_text(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(map(_json_text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(name, ensure_ascii=False)}:{_json_text(item)}' for name, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_word(what: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise InvalidConfig(f"Unknown {what} {word!r}.", f"Choose one of: {', '.join(known)}.")
