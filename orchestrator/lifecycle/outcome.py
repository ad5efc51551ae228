"""How a run ends: from a verdict and a stop request, or from an error on the way."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import BuildFailed, DiskFull, PhaseFailed, is_disk_full
from orchestrator.executors.base import Verdict
from orchestrator.records.files import ArtifactRecord
from orchestrator.states import StopRequest
from orchestrator.store import RequestedStop

_TOLD = 5
NEVER_STARTED = "its command was not started, so there are no outputs"


def decide(verdict: Verdict, request: StopRequest | None, request_reason: str = "") -> str:
    """The end reason of a run whose command has ended, in `states.ENDS`.

    Args:
        request_reason: the end reason of a request to stop that no person made; "" else.
    """
    if request == StopRequest.KILL:
        return "kill_requested"
    if verdict.reason and not (request and verdict.reason in ("disk_full", "out_of_memory")):
        return verdict.reason
    if request == StopRequest.STOP:
        return request_reason or "stop_requested"
    if verdict.signal is not None:
        return "signalled"
    return "exited_nonzero" if verdict.exit_code else "exited_zero"


def as_requested(asked: RequestedStop, *, is_started: bool) -> tuple[str, str]:
    """Return the end reason, and its detail, of a run that would have ended otherwise when a request was accepted.

    Args:
        is_started: whether its command was started.
    """
    if asked.request == StopRequest.KILL:
        return "kill_requested", ""
    return asked.reason or "stop_requested", asked.detail or ("" if is_started else NEVER_STARTED)


def facts_of(verdict: Verdict) -> dict[str, float | None]:
    """Return the columns of a run that its verdict fills."""
    facts: dict[str, float | None] = {"exit_code": verdict.exit_code, "signal": verdict.signal}
    if verdict.ended_at:  # else unknown
        facts |= {
            "started_at": verdict.started_at,
            "ended_at": verdict.ended_at,  # of the command: the server may have been down for hours
            "duration_s": max(0.0, verdict.duration_s),
            "cpu_time_s": verdict.cpu_time_s,
            "max_rss_bytes": verdict.max_rss_bytes,
        }
    return facts


def not_kept(found: Sequence[ArtifactRecord]) -> str:
    """Return a sentence about outputs that were not kept; "" if all were."""
    lost = [f"{item.path} ({item.note})" for item in found if item.note]
    more = f" and {len(lost) - _TOLD} more" if len(lost) > _TOLD else ""
    return f"Not kept: {', '.join(lost[:_TOLD])}{more}" if lost else ""


def as_phase(error: OSError) -> PhaseFailed:
    if is_disk_full(error):
        return DiskFull(f"{error.filename}: {error.strerror}")
    return BuildFailed(f"{error.filename}: {error.strerror}")
