"""What a supervisor has written about the end of an attempt, as a `Verdict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import DiskFull, ExecutorFailed, MountFailed, PhaseFailed
from orchestrator.executors.base import Verdict

_FLAGS = ("disk_full", "out_of_memory", "timed_out")


_NUMBERS = {"exit_code": 255, "signal": 64, "max_rss_bytes": 1 << 62}
_TIMES = {"started_at", "ended_at", "duration_s", "cpu_time_s"}
_LATEST_S = 1e11
_REASONS = {"executor_failed", "mount_failed", "disk_full", "supervisor_lost", "container_lost"}
_REASONS |= {"machine_restarted", "out_of_memory", "timed_out"}


def is_verdict(words: object) -> bool:
    """Whether these are words of `supervisor.main.judge`, by their form: a run may have replaced who says them."""
    if not isinstance(words, Mapping) or not {"error", *_FLAGS, *_NUMBERS, *_TIMES} <= words.keys():
        return False
    error = words["error"]
    return (
        (error is None or (isinstance(error, Mapping) and error.get("reason") in _REASONS))
        and all(isinstance(words[name], bool) for name in _FLAGS)
        and all(_is_number(words[name], most) for name, most in _NUMBERS.items())
        and all(isinstance(words[name], int | float) and 0 <= words[name] < _LATEST_S for name in _TIMES)
    )


def _is_number(value: object, most: int) -> bool:
    return value is None or (isinstance(value, int) and 0 <= value <= most)


def read_verdict(words: Mapping[str, Any]) -> Verdict:
    """The verdict in the words of `supervisor.main.judge`."""
    error = words["error"] or {}
    reason, detail = str(error.get("reason", "")), str(error.get("detail", ""))
    if words["disk_full"]:
        detail = "there was no space left when the command ended"
    for flag in _FLAGS:
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
    return kinds.get(str(words.get("reason")), ExecutorFailed)(str(words.get("detail")))


def as_words(verdict: Verdict, version: int) -> dict[str, Any]:
    """A verdict that was found out here, in the words of `supervisor.main.judge`."""
    flags = dict.fromkeys(_FLAGS, False)
    error = {"reason": verdict.reason, "detail": verdict.detail}
    names = ("exit_code", "signal", "started_at", "ended_at", "duration_s", "cpu_time_s", "max_rss_bytes")
    return {"version": version, "error": error, **flags, **{name: getattr(verdict, name) for name in names}}
