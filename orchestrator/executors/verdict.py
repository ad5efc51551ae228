"""What a supervisor has written about the end of an attempt, as a `Verdict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import DiskFull, ExecutorFailed, MountFailed, PhaseFailed
from orchestrator.executors.base import Verdict


def read_verdict(words: Mapping[str, Any]) -> Verdict:
    """The verdict in the words of `supervisor.main.judge`."""
    error = words["error"] or {}
    reason, detail = str(error.get("reason", "")), str(error.get("detail", ""))
    if words["disk_full"]:
        detail = "there was no space left when the command ended"
    for flag in ("disk_full", "out_of_memory", "timed_out"):
        if words[flag]:
            reason = flag
    return Verdict(
        exit_code=words["exit_code"],
        signal=words["signal"],
        reason=reason,
        detail=detail,
        started_at=words["started_at"],
        ended_at=words["ended_at"],
        duration_s=words["duration_s"],
        cpu_time_s=words["cpu_time_s"],
        max_rss_bytes=words["max_rss_bytes"],
    )


def phase_error(words: Mapping[str, Any]) -> PhaseFailed:
    """The error of a supervisor that could not start the command."""
    kinds: dict[str, type[PhaseFailed]] = {"mount_failed": MountFailed, "disk_full": DiskFull}
    return kinds.get(str(words["reason"]), ExecutorFailed)(str(words["detail"]))
