"""Projects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """A project.

    Attributes:
        runs: the number of its runs, with archived ones.
        active_runs: the number of its runs that have not ended.
    """

    name: str
    description: str
    archived: bool
    runs: int
    active_runs: int
    created_at: float
