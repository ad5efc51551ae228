"""Workflows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.records import from_wire


@dataclass(frozen=True, slots=True)
class WorkflowCastRecord:
    """A workflow that was cast: its number, and warnings for the person."""

    number: int
    warnings: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSummary:
    """A line of `spell workflow list`.

    Attributes:
        steps_complete, steps_count: the numbers of complete and of all steps.
    """

    number: int
    name: str
    state: str
    wish: str | None
    reuse: bool
    steps_complete: int
    steps_count: int
    created_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step of a workflow.

    Attributes:
        state: that of its run; without one `waiting`, `skipped`, or `failed`: it could not be cast.
        run: the number of its run.
        reused: whether that is an earlier run.
        needs: the steps that must be complete before it.
        message: the reason for its state; "" for none.
    """

    name: str
    state: str
    run: int | None
    reused: bool
    needs: list[str]
    exit_code: int | None
    signal: int | None
    duration_s: float | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRecord(WorkflowSummary):
    """The record of one workflow; its steps in the order of its file."""

    steps: list[StepRecord]


def workflow_from_wire(body: Mapping[str, Any]) -> WorkflowRecord:
    """The record in a JSON object."""
    steps = [from_wire(StepRecord, step) for step in body["steps"]]
    return from_wire(WorkflowRecord, {**body, "steps": steps})
