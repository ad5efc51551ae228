"""The answer to casting a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CastRecord:
    """A run that was cast: its number, and warnings for the person.

    Attributes:
        reused: whether it is an earlier identical run, so that no run was cast.
    """

    number: int
    machine_type: str
    warnings: list[str]
    reused: bool = False
