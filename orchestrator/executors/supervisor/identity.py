"""Which process is meant. A pid is reused, sooner or later; a pid with its start time on one boot is not."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

_LINUX_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def boot_id() -> str:
    """Changes with every start of the machine."""
    if _LINUX_BOOT_ID.exists():
        return _LINUX_BOOT_ID.read_text().strip()
    return _output("sysctl", "-n", "kern.boottime")


def start_time(pid: int) -> str:
    """When process `pid` started, in units of its own (clock ticks since boot on Linux); "" when it is gone."""
    if _LINUX_BOOT_ID.exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return ""
        return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5), the 20th after the command's name
    return _output("ps", "-o", "lstart=", "-p", str(pid))


def parents() -> dict[int, int]:
    """pid → pid of its parent, of all processes that can be seen."""
    found: dict[int, int] = {}
    if not _LINUX_BOOT_ID.exists():
        for line in _output("ps", "-A", "-o", "pid=,ppid=").splitlines():
            pid, parent = line.split()
            found[int(pid)] = int(parent)
        return found
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_text()
            except OSError:
                continue
            found[int(name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def descendants(root: int) -> list[int]:
    """All living processes below `root`, zombies included, `root` itself not."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()
