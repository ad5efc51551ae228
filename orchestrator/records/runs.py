"""Runs: the whole record of one, its attempts, and its usage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.records import from_wire
from orchestrator.records.imports import ImportRecord
from orchestrator.records.run_summary import RunSummary


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """A failed attempt of a run that was tried again."""

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
    """The record of one run, without its lists: events, artifacts, metrics, samples.

    Attributes:
        imported: where it was imported from; None for a run that was cast.
    """

    spec: dict[str, Any] = field(repr=False)
    rerun_of: int | None
    search: int | None
    mounts: list[dict[str, str]]
    mounted_by: list[int]
    attempt: int
    attempts: list[AttemptRecord]
    gpus: list[int]
    cores: list[int]
    image: str | None
    environment: str | None
    python: str
    packages: list[str]
    cpu_time_s: float | None
    max_rss_bytes: int | None
    outputs_count: int
    outputs_bytes: int
    outputs_removed_at: float | None
    resumed_by: list[int] = field(default_factory=list)
    logged: dict[str, str] = field(default_factory=dict)
    imported: ImportRecord | None = None


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """The usage of a run at one moment: CPU seconds since its start, bytes, and one entry for each of its GPUs."""

    run: int
    at: float
    cpu_time_s: float
    memory_bytes: int
    processes: int
    gpus: list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class StatRecord:
    """The usage of a running run now. A value that its executor did not report in time is None.

    Attributes:
        cpu_percent: 100 for one busy core.
        memory_limit_bytes: of its machine type; None for no limit.
        gpus: as in `SampleRecord`.
        duration_s: the seconds since its command started.
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
    attempts = [from_wire(AttemptRecord, item) for item in body["attempts"]]
    imported = from_wire(ImportRecord, body["imported"]) if body.get("imported") else None
    return from_wire(RunRecord, {**body, "attempts": attempts, "imported": imported})
