"""What was read of one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.formats.records import Point


class Picture(NamedTuple):
    """An encoded image."""

    tag: str
    step: int
    data: bytes


@dataclass(slots=True)
class Logged:
    """What one run of a tracker has logged.

    Attributes:
        source: TRACKER:WHICH.
        label: what tells it from other runs of that tracker: a folder, or a name.
        void_from: its earlier values from this step on are void; None for none.
    """

    source: str
    label: str
    points: list[Point] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    void_from: int | None = None

    def count(self, kind: str, amount: int = 1) -> None:
        """Count something that is no metric."""
        self.counts[kind] = self.counts.get(kind, 0) + amount


@dataclass(frozen=True, slots=True)
class Found:
    """What was read of one file.

    Attributes:
        position: where reading goes on.
        damage: what is wrong with the file; "" for nothing.
        more: whether more can be read at once.
        foreign: whether it is no file of a tracker at all.
    """

    position: int
    logged: Sequence[Logged] = ()
    damage: str = ""
    more: bool = False
    foreign: bool = False
