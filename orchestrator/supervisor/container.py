"""The supervisor of an attempt in a container, and its keeper at once: process 1, and so the init of the container.

spelld shows it a folder with names that it opens and then removes, so that the command can reach none of them by name;
spelld holds other names (hard links) of the same files:

    request-NONCE       what to do, marshalled. Who removes it takes the attempt, once and for all: we, or a spelld that
                        came back and takes it as never started
    secrets             a named pipe that tells them, where there are some; read before the request is taken, so that an
                        attempt whose secrets did not come was never started
    line                a named pipe, held open as long as we live: spelld reads from it that the command has started, and
                        sees its end at once
    log                 gets the command's output
    times               when the log grew; see `timeline`
    result              how it ended: 4 KiB set aside; all blank until then
    errors              what Python says when we fail

SIGTERM stops the run, SIGUSR1 kills it. Runs on the image's Python (3.9 or newer), standard library only.
"""

from __future__ import annotations

import importlib
import marshal
import os

from orchestrator.supervisor import isolation, log_times, reaper
from orchestrator.supervisor.verdict import judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal

RESULT_BYTES = 4096
REQUEST_FORMAT = 2  # of marshal; every Python 3 reads it
_OOM_FILES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")  # cgroup v2, v1


def main(folder: str, request_name: str) -> None:
    """Supervise the attempt to its end, and end the container."""
    env = _env()
    isolation.be_unreachable()
    signal.pthread_sigmask(signal.SIG_BLOCK, reaper.SIGNALS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python's own handler would have a command's `kill -INT 1` end us
    os.chdir(folder)
    os.dup2(os.open("errors", os.O_WRONLY | os.O_APPEND), 2)
    line = os.open("line", os.O_RDWR)  # opened so, it needs nobody at the other end
    secrets = _secrets()
    if secrets is None:
        return
    request = _take(request_name)
    if request is None:
        os.write(line, b'{"taken": true}\n')
        return
    log = os.open("log", os.O_WRONLY | os.O_APPEND)
    times = os.open("times", os.O_WRONLY | os.O_APPEND)
    result = os.open("result", os.O_WRONLY)
    for name in ("errors", "line", "log", "result", "times"):
        os.unlink(name)
    request["argv"] = ["/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh", "-c", request["command"]]
    request["env"] = {**env, **request["env"]}
    verdict = judge(lambda: _keep(request, line, log, times, secrets), folder, _oom_kills, only_when_killed=False)
    os.fsync(log)
    os.pwrite(result, as_json(verdict).encode().ljust(RESULT_BYTES), 0)
    os.fsync(result)
    if verdict["error"]:
        os.write(line, as_json({"error": verdict["error"]}).encode() + b"\n")
    os._exit(0)  # spelld sees the end of our pipe; there is nothing that Python had to tidy up


def _secrets() -> dict[str, bytes] | None:
    """The secrets of the run; None when spelld was gone before it had told all."""
    try:
        fd = os.open("secrets", os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    os.unlink("secrets")
    telling = importlib.import_module("orchestrator.supervisor.secrets_pipe")  # what most runs need not wait for
    found: dict[str, bytes] | None = telling.read_secrets(fd)
    return found


def _take(request_name: str) -> dict[str, Any] | None:
    """What is to be done; None when somebody else took the attempt."""
    try:
        with open(request_name, "rb") as file:
            request: dict[str, Any] = marshal.load(file)  # noqa: S302 - it is spelld's: nobody was here before us
        os.unlink(request_name)
    except FileNotFoundError:
        return None
    return request


def _env() -> dict[str, str]:
    """The variables of the image, without what Python itself has added to its own (LC_CTYPE)."""
    with open("/proc/self/environ", "rb") as file:
        pairs = file.read().split(b"\0")
    return dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)


def _keep(request: dict[str, Any], line: int, log: int, times: int, secrets: dict[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    told = b'{"started_at": %r}\n'
    one = reaper.Keeper(request, log, secrets, lambda started_at: os.write(line, told % started_at), found.update)
    one.timeline = log_times.Timeline(log, times)
    one.lead()
    return found


def as_json(value: object) -> str:
    """What `json.dumps` says of a number, text, None, or a dict of these.

    `import json` takes 7 to 12 ms of CPU time here (it brings `re`; median 9.7 ms of ten starts of Debian 12's Python
    3.11 with -I -S, in containers of their own), and each container would pay it to write one line.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(as_json(name) + ": " + as_json(item) for name, item in value.items()) + "}"
    if isinstance(value, str):
        return '"' + "".join(map(_escaped, value)) + '"'
    if value is None or value is True or value is False:
        return "null" if value is None else str(value).lower()
    return repr(value)


def _escaped(char: str) -> str:
    if " " <= char <= "~" and char not in '"\\':
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _oom_kills() -> int:
    """How many processes of this container the kernel has ended for want of memory."""
    for name in _OOM_FILES:
        try:
            with open(name) as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0
