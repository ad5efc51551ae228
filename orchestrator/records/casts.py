"""What the API answers to who casts a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CastRecord:
    """The answer to casting a run: its number, and what to tell the person.

    Attributes:
        reused: whether it is an earlier run, which did what was asked; nothing was cast then.
    """

    number: int
    machine_type: str
    warnings: list[str]
    reused: bool = False
