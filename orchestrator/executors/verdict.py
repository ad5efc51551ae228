"""Reads what a supervisor has written about the end of an attempt, as a `Verdict`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import DiskFull, ExecutorFailed, MountFailed, PhaseFailed
from orchestrator.executors.base import Verdict

_FLAGS = ("disk_full", "out_of_memory", "timed_out")
_ENDS = {"exit_code": 255, "signal": 64}
_NUMBERS = {"max_rss_bytes": 1 << 62, "oom_kills": 1 << 31}
_TIMES = {"started_at", "ended_at", "duration_s", "cpu_time_s"}
_LATEST_S = 1e11
_KILLED = 137  # the exit code of a shell whose command was killed
_SOME_KILLED = "Some processes of the run were killed, because it needed more memory than it may have."
_REASONS = {"executor_failed", "mount_failed", "disk_full", "supervisor_lost", "container_lost"}
_REASONS |= {"machine_restarted", "out_of_memory", "timed_out"}


def is_verdict(words: object) -> bool:
    """Whether this has the form of `supervisor.verdict.verdict_of`: a run may have replaced its writer."""
    if not isinstance(words, Mapping) or not {"error", *_FLAGS, *_ENDS, *_NUMBERS, *_TIMES} <= words.keys():
        return False
    return (
        _is_error(words["error"])
        and all(isinstance(words[name], bool) for name in _FLAGS)
        and all(words[name] is None or _is_number(words[name], most) for name, most in _ENDS.items())
        and all(_is_number(words[name], most) for name, most in _NUMBERS.items())
        and all(isinstance(words[name], int | float) and 0 <= words[name] < _LATEST_S for name in _TIMES)
    )


def _is_number(value: object, most: int) -> bool:
    return isinstance(value, int) and 0 <= value <= most


def _is_error(error: object) -> bool:
    if error is None:
        return True
    reason = error.get("reason") if isinstance(error, Mapping) else None
    return isinstance(reason, str) and reason in _REASONS


def read_verdict(words: Mapping[str, Any]) -> Verdict:
    """Return the verdict that `supervisor.verdict.verdict_of` wrote."""
    error = words["error"] or {}
    reason, detail = str(error.get("reason", "")), str(error.get("detail", ""))
    for flag in _FLAGS:
        if words[flag]:
            reason, detail = flag, ""
    if reason == "disk_full" and words["disk_full"]:
        detail = "no space was left when the command ended"
    if reason == "out_of_memory" and words["exit_code"] not in (None, _KILLED):  # perhaps for another reason too
        detail = f": some of its processes were killed, and it ended with exit code {words['exit_code']}"
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
        note="" if words["out_of_memory"] or not words.get("oom_kills") else _SOME_KILLED,
    )


def phase_error(words: Mapping[str, Any]) -> PhaseFailed:
    """Return the error of a supervisor that could not start the command."""
    kinds: dict[str, type[PhaseFailed]] = {"mount_failed": MountFailed, "disk_full": DiskFull}
    return kinds.get(str(words.get("reason")), ExecutorFailed)(str(words.get("detail")))


def as_words(verdict: Verdict, version: int) -> dict[str, Any]:
    """Return a verdict as `supervisor.verdict.verdict_of` would write it."""
    flags = dict.fromkeys(_FLAGS, False)
    error = {"reason": verdict.reason, "detail": verdict.detail}
    names = ("exit_code", "signal", "started_at", "ended_at", "duration_s", "cpu_time_s", "max_rss_bytes")
    return {
        "version": version,
        "error": error,
        "oom_kills": 0,
        **flags,
        **{name: getattr(verdict, name) for name in names},
    }


def remove_unfinished(folder: Path) -> None:
    """Remove files that a process of an attempt was writing when it was killed: `verdict.tmp` and the like."""
    for left in folder.glob("*.tmp"):
        left.unlink(missing_ok=True)
