"""What the API answers about runs: all about one, and what it used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.records import from_wire
from orchestrator.records.run_summary import RunSummary


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """An attempt of a run that failed, and after which the run was tried again."""

    number: int
    started_at: float | None
    ended_at: float | None
    duration_s: float | None
    exit_code: int | None
    signal: int | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(RunSummary):
    """All that is known of one run, except what has a list of its own (events, artifacts, metrics, samples)."""

    spec: dict[str, Any] = field(repr=False)
    rerun_of: int | None
    search: int | None
    mounts: list[dict[str, str]]
    mounted_by: list[int]
    attempt: int
    attempts: list[AttemptRecord]
    gpus: list[int]
    image: str | None
    environment: str | None
    python: str
    packages: list[str]
    cpu_time_s: float | None
    max_rss_bytes: int | None
    outputs_count: int
    outputs_bytes: int
    outputs_removed_at: float | None


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """What a run used at one moment: CPU seconds since its start, bytes, and one entry per GPU that it has."""

    run: int
    at: float
    cpu_time_s: float
    memory_bytes: int
    processes: int
    gpus: list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class StatRecord:
    """What a running run uses now. What its executor did not tell in time is None.

    Attributes:
        cpu_percent: 100 for one core that is always busy.
        memory_limit_bytes: what it asked for; None when it asked for none.
        gpus: as in `SampleRecord`.
        duration_s: since its command was started.
    """

    run: int
    name: str
    command: str
    executor: str
    cpu_percent: float | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    processes: int | None
    gpus: list[dict[str, float]]
    duration_s: float


def run_from_wire(body: Mapping[str, Any]) -> RunRecord:
    """Read a run."""
    return from_wire(RunRecord, {**body, "attempts": [from_wire(AttemptRecord, item) for item in body["attempts"]]})
