"""The supervisor of an attempt in a container, and its keeper at once: process 1, and so the init of the container.

spelld shows it a folder with names that it opens and then removes, so that the command can reach none of them by name;
spelld holds other names (hard links) of the same files:

    request-NONCE.json  what to do. Who removes it takes the attempt, once and for all: we, or a spelld that came back and
                        takes it as never started
    line                a named pipe, held open as long as we live: spelld reads from it that the command has started, and
                        sees its end at once
    log                 gets the command's output
    result              how it ended: 4 KiB set aside; all blank until then
    errors              what Python says when we fail

SIGTERM stops the run, SIGUSR1 kills it. Runs on the image's Python (3.9 or newer), standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from orchestrator.executors.supervisor import isolation, keeper
from orchestrator.executors.supervisor import main as supervisor

RESULT_BYTES = 4096
_OOM_FILES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")  # cgroup v2, v1


def main(folder_name: str, request_name: str) -> int:
    """Supervise the attempt to its end. Returns the exit status of the container, which nobody looks at."""
    env = _env()
    isolation.be_unreachable()
    signal.pthread_sigmask(signal.SIG_BLOCK, keeper.SIGNALS)
    folder = Path(folder_name)
    os.dup2(os.open(folder / "errors", os.O_WRONLY | os.O_APPEND), 2)
    line = os.open(folder / "line", os.O_RDWR)  # opened so, it needs nobody at the other end
    try:
        request: dict[str, Any] = json.loads((folder / request_name).read_bytes())
        (folder / request_name).unlink()
    except FileNotFoundError:
        os.write(line, b'{"taken": true}\n')
        return 0
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND)
    result = os.open(folder / "result", os.O_WRONLY)
    for name in ("errors", "line", "log", "result"):
        (folder / name).unlink()
    request["argv"] = ["/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh", "-c", request["command"]]
    request["env"] = {**env, **request["env"]}
    verdict = supervisor.judge(lambda: _keep(request, line, log), folder, _oom_kills, only_when_killed=False)
    os.fsync(log)
    os.pwrite(result, json.dumps(verdict).encode().ljust(RESULT_BYTES), 0)
    os.fsync(result)
    if verdict["error"]:
        os.write(line, (json.dumps({"error": verdict["error"]}) + "\n").encode())
    return 0


def _env() -> dict[str, str]:
    """The variables of the image, without what Python itself has added to its own (LC_CTYPE)."""
    pairs = Path("/proc/self/environ").read_bytes().split(b"\0")
    return dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)


def _keep(request: dict[str, Any], line: int, log: int) -> dict[str, Any]:
    read_fd, write_fd = os.pipe()
    keeper.Keeper(request, write_fd, os.dup(line), log).lead()
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as words:
        return dict(json.loads(words.readlines()[-1]))


def _oom_kills() -> int:
    """How many processes of this container the kernel has ended for want of memory."""
    for name in _OOM_FILES:
        try:
            lines = Path(name).read_text().splitlines()
        except OSError:
            continue
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
