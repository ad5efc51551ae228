"""How an attempt ended, as its supervisor tells it."""

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
_ALMOST_FULL_BYTES = 16 << 20  # more than the store lets go of when it cannot be written


class MountError(OSError):
    """A bind mount was refused."""


def words_of(error: OSError) -> dict[str, str]:
    """What to report: the end reason, and the words that go with it."""
    reason = "mount_failed" if isinstance(error, MountError) else "executor_failed"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):  # as `errors.is_disk_full`, which is not to be had beside a run
        reason = "disk_full"
    return {"reason": reason, "detail": f"{error.strerror}: {error.filename}"}


def judge(
    run: Callable[[], dict[str, Any]], disk: str, oom_kills: Callable[[], int], *, only_when_killed: bool
) -> dict[str, Any]:
    """Run a command, and say how it ended.

    Args:
        run: runs it; returns the fields of the verdict that its keeper knows.
        disk: a place on the disk that it writes to.
        oom_kills: how many processes were ended for want of memory up to now.
        only_when_killed: whether such an end of some process is its own only when it was killed itself.
    """
    before = oom_kills()
    verdict: dict[str, Any] = {"version": VERSION, "error": None, "exit_code": None, "signal": None, "timed_out": False}
    began_at, began = time.time(), time.monotonic()
    verdict |= {"max_rss_bytes": 0, "started_at": began_at}
    try:
        verdict |= run()
    except OSError as error:
        verdict["error"] = words_of(error)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    verdict["duration_s"] = time.monotonic() - began
    # not what the clock says now: somebody may have set it meanwhile
    verdict["ended_at"] = max(verdict["started_at"], began_at + verdict["duration_s"])
    verdict["cpu_time_s"] = usage.ru_utime + usage.ru_stime
    killed = verdict["signal"] == signal.SIGKILL or verdict["exit_code"] == 128 + signal.SIGKILL
    failed = killed if only_when_killed else verdict["exit_code"] != 0
    kills = oom_kills() - before
    verdict["out_of_memory"] = failed and kills > 0
    verdict["oom_kills"] = 0 if only_when_killed else kills
    verdict["disk_full"] = verdict["exit_code"] != 0 and _almost_full(disk)
    return verdict


def _almost_full(folder: str) -> bool:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < _ALMOST_FULL_BYTES
