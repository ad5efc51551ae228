"""What a run in a container uses now, by the engine's statistics and, where they lack it, by the kernel's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.engine import Engine, EngineError
from orchestrator.executors.base import Handle, Usage
from orchestrator.executors.docker import files
from orchestrator.executors.docker.exit import noted

_CACHE = ("total_inactive_file", "inactive_file")  # cgroup v1, v2
_CGROUPS = Path("/sys/fs/cgroup")


def usage(engine: Engine, handle: Handle) -> Usage | None:
    """Return what an attempt uses now; None when it is over, or when nobody counts.

    Raises:
        EngineError: when the engine does not answer.
    """
    if files.is_over(handle.folder) or engine.info.get("CgroupDriver") == "none":
        return None  # without control groups the engine reports the usage of the whole machine
    try:
        with engine.translated_errors():
            found = engine.api.stats(handle.data["container"], stream=False, one_shot=True)
    except EngineError:
        if files.is_over(handle.folder):
            return None
        raise
    memory = found["memory_stats"]
    if "usage" not in memory:
        return None  # over
    cached = _cached(memory.get("stats") or _memory_of(noted(handle.folder)[0]))
    cpu_time_s = found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    return Usage(cpu_time_s, max(0, int(memory["usage"]) - cached), int(found["pids_stats"].get("current", 1)))


def _cached(stats: dict[str, Any]) -> int:
    """Return the bytes of files that the kernel drops when somebody needs the memory."""
    return int(next((stats[name] for name in _CACHE if name in stats), 0))


def _memory_of(pid: int) -> dict[str, str]:
    """Return the kernel's statistics of the control group of a process: podman (4.3.1) tells none of them."""
    try:
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):  # "": version 2
                folder = _CGROUPS / controllers / path.lstrip("/")
                text = (folder / "memory.stat").read_text()
                return dict(item.split() for item in text.splitlines())
    except (OSError, ValueError):  # it is over, or its control group is out of sight
        pass
    return {}
