"""What the API answers of projects. As in `orchestrator.records`: frozen, printed by `--json`, in this order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """A project.

    Attributes:
        runs: how many belong to it, archived ones too.
        active_runs: how many of them have not ended.
    """

    name: str
    description: str
    archived: bool
    runs: int
    active_runs: int
    created_at: float
