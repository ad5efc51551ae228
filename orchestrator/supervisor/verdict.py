"""Decides how an attempt ended. The supervisor writes what this returns."""

from __future__ import annotations

import errno
import os
import resource
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any
else:
    import _signal as signal

VERSION = 1
_ALMOST_FULL_BYTES = 16 << 20  # more than the store frees when it cannot be written


class MountError(OSError):
    """A bind mount was refused."""


def words_of(error: OSError) -> dict[str, str]:
    """Return the error as a verdict reports it: the end reason and its detail."""
    reason = "mount_failed" if isinstance(error, MountError) else "executor_failed"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):  # as `errors.is_disk_full`, which a supervisor cannot import
        reason = "disk_full"
    return {"reason": reason, "detail": f"{error.strerror}: {error.filename}"}


def verdict_of(
    run: Callable[[], dict[str, Any]], disk: int | str, oom_kills: Callable[[], int], *, only_when_killed: bool
) -> dict[str, Any]:
    """Run a command, and return how it ended, as a dict that becomes `verdict.json`.

    Args:
        run: runs the command; returns the fields of the verdict that its reaper knows.
        disk: a folder on the disk that the command writes to; its descriptor, if it may be moved meanwhile.
        oom_kills: returns how many processes the kernel has killed so far because memory ran out.
        only_when_killed: whether such a kill counts for this command only if the command itself was killed.
    """
    before = oom_kills()
    verdict: dict[str, Any] = {"version": VERSION, "error": None, "exit_code": None, "signal": None, "timed_out": False}
    began_at, began = time.time(), time.monotonic()
    verdict.update(max_rss_bytes=0, started_at=began_at)
    try:
        verdict.update(run())
    except OSError as error:
        verdict["error"] = words_of(error)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    verdict["duration_s"] = time.monotonic() - began
    # not the clock's time now: it may have been set meanwhile
    verdict["ended_at"] = max(verdict["started_at"], began_at + verdict["duration_s"])
    verdict["cpu_time_s"] = usage.ru_utime + usage.ru_stime
    killed = verdict["signal"] == signal.SIGKILL or verdict["exit_code"] == 128 + signal.SIGKILL
    failed = killed if only_when_killed else verdict["exit_code"] != 0
    kills = oom_kills() - before
    verdict["out_of_memory"] = failed and kills > 0
    verdict["oom_kills"] = 0 if only_when_killed else kills
    verdict["disk_full"] = verdict["exit_code"] != 0 and _almost_full(disk)
    return verdict


def _almost_full(folder: int | str) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:  # how the command ended counts more
        return False
    return disk.f_bavail * disk.f_frsize < _ALMOST_FULL_BYTES
