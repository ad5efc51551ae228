"""What every reader returns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Point(NamedTuple):
    """One value of a metric. It may be NaN or infinite; `at` is in seconds since the epoch."""

    name: str
    step: int
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Some records of a file that may still grow.

    Attributes:
        items: the records.
        next: the position at which reading goes on. A half-written record lies behind it.
        damage: what is wrong at `next`, or was passed over before it; "" for nothing.
        more: whether `limit_bytes` ended the batch, so that more can be read at once.
    """

    items: list[T]
    next: int
    damage: str = ""
    more: bool = False


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run as its tracker knows it.

    Attributes:
        key: identifies it in its tracker.
        name: its name for people; "" for none.
        project: its project or experiment; "" for none.
        status: the tracker's own word, lower-case: finished, failed, running, …; "" where the tracker has none.
        started_at, ended_at: in seconds since the epoch; None where unknown.
        parameters: by name; what is no text is JSON.
        tags: by name.
        artifacts: the URI or path of its artifacts; "" for none.
        deleted: whether it lies in the tracker's bin.
    """

    key: str
    name: str = ""
    project: str = ""
    status: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: str = ""
    deleted: bool = False


def as_text(value: Any) -> str:
    """Return the value of a parameter as text; what is no text as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def numbers(words: Mapping[str, Any], prefix: str = "", between: str = ".") -> Iterator[tuple[str, float]]:
    """Yield all numbers in nested words, each with the path that leads to it. Others are passed over."""
    todo = [(prefix, words)]
    while todo:  # no recursion, as a file may nest very deep
        place, found = todo.pop()
        for key, value in found.items():
            path = f"{place}{between}{key}" if place else key
            if isinstance(value, bool):
                yield path, float(value)
            elif isinstance(value, int | float):
                try:
                    yield path, float(value)
                except OverflowError:
                    yield path, float("inf") if value > 0 else float("-inf")
            elif isinstance(value, dict) and "_type" not in value:  # else a picture, a table, a histogram
                todo.append((path, value))
