"""Identifies a process. A pid is reused sooner or later; a pid with its start time and boot id is not."""

from __future__ import annotations

import os

_LINUX_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_found: list[str] = []  # the boot id


def boot_id() -> str:
    """Return the id of this boot, which changes with every start of the machine."""
    if not _found:
        _found.append(_read(_LINUX_BOOT_ID).strip() if _is_linux() else _output("sysctl -n kern.boottime"))
    return _found[0]


def start_time(pid: int) -> str:
    """Return when process `pid` started (clock ticks since boot on Linux, else text of ps); "" when it is gone."""
    if _is_linux():
        try:
            stat = _read(f"/proc/{pid}/stat")
        except OSError:
            return ""
        return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5), the 20th after the command's name
    return _output(f"ps -o lstart= -p {pid:d}")


def parents() -> dict[int, int]:
    """Return a map from pid to the parent's pid, for all visible processes."""
    found: dict[int, int] = {}
    if not _is_linux():
        for line in _output("ps -A -o pid=,ppid=").splitlines():
            pid, parent = line.split()
            found[int(pid)] = int(parent)
        return found
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = _read(f"/proc/{name}/stat")
            except OSError:
                continue
            found[int(name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def descendants(root: int) -> list[int]:
    """Return all living processes below `root`, zombies included, without `root` itself."""
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


def _is_linux() -> bool:
    return os.path.exists(_LINUX_BOOT_ID)


def _read(name: str) -> str:
    with open(name) as file:  # pathlib is slow to load, and a container waits for us
        return file.read()


def _output(command: str) -> str:
    with os.popen(command) as output:  # loads subprocess only where it is needed  # noqa: S605
        return output.read().strip()
