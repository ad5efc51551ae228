"""How a run ends: from a verdict and a wish, or from an error on the way."""

from __future__ import annotations

import errno

from orchestrator.errors import BuildFailed, DiskFull, PhaseFailed
from orchestrator.executors.base import Verdict
from orchestrator.states import Wish


def decide(verdict: Verdict, wish: Wish | None, wish_reason: str = "") -> str:
    """The end reason of a run whose command has ended, in `states.ENDS`.

    Args:
        wish_reason: the end reason of a wish to stop that no person had; "" else.
    """
    if wish == Wish.KILL:
        return "kill_requested"
    if verdict.reason and not (wish and verdict.reason in ("disk_full", "out_of_memory")):
        return verdict.reason
    if wish == Wish.STOP:
        return wish_reason or "stop_requested"
    if verdict.signal is not None:
        return "signalled"
    return "exited_nonzero" if verdict.exit_code else "exited_zero"


def is_disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def as_phase(error: OSError) -> PhaseFailed:
    if is_disk_full(error):
        return DiskFull(f"{error.filename}: {error.strerror}")
    return BuildFailed(f"{error.filename}: {error.strerror}")
