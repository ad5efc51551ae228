"""Supervisor and reaper of an attempt in a container, in one process: process 1, and so the container's init.

spelld mounts a folder into the container. This process opens the files in it and then removes their names, so that the
command cannot reach them by name; spelld keeps hard links to the same files:

    request-NONCE       what to do, marshalled. Removing it takes the attempt, exactly once: done by this process, or by a
                        restarted spelld that counts the attempt as never started
    secrets             a named pipe with the run's secrets, if it has any; read before the request is taken, so that an
                        attempt without its secrets was never started
    line                a named pipe that this process holds open while it lives: spelld reads from it that the command
                        has started, and sees the end of this process at once
    log                 the command's output
    times               when the log grew; see `log_times`
    result              the verdict, in 4 KiB that are reserved in advance; spaces until then
    errors              Python's standard error of this process

SIGTERM stops the run, SIGUSR1 kills it. Needs the image's Python (3.6 or newer) and only its standard library.
"""

from __future__ import annotations

import marshal
import os

from orchestrator.supervisor import isolation, log_times, reaper
from orchestrator.supervisor.verdict import verdict_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal

RESULT_BYTES = 4096
REQUEST_FORMAT = 2  # version of marshal; every Python 3 reads it
_OOM_FILES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")  # cgroup v2, v1


def main(folder: str, request_name: str) -> None:
    """Supervise the attempt to its end, and end the container."""
    env = _env()
    isolation.be_unreachable()
    signal.pthread_sigmask(signal.SIG_BLOCK, reaper.SIGNALS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # with Python's handler, a command's `kill -INT 1` would end us
    os.chdir(folder)
    os.dup2(os.open("errors", os.O_WRONLY | os.O_APPEND), 2)
    line = os.open("line", os.O_RDWR)  # O_RDWR does not wait for a reader
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
    verdict = verdict_of(lambda: _keep(request, line, log, times, secrets), folder, _oom_kills, only_when_killed=False)
    os.fsync(log)
    os.pwrite(result, as_json(verdict).encode().ljust(RESULT_BYTES), 0)
    os.fsync(result)
    if verdict["error"]:
        os.write(line, as_json({"error": verdict["error"]}).encode() + b"\n")
    os._exit(0)  # spelld sees the end of our pipe; Python has nothing to clean up


def _secrets() -> dict[str, bytes] | None:
    """Read the secrets of the run. Returns None when spelld ended before it had written all of them."""
    try:
        fd = os.open("secrets", os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    os.unlink("secrets")
    from orchestrator.supervisor.secrets_pipe import read_secrets  # 7 ms: json; few runs have secrets

    return read_secrets(fd)


def _take(request_name: str) -> dict[str, Any] | None:
    """Take the attempt and return its request; None when another process took it first."""
    try:
        with open(request_name, "rb") as file:
            request: dict[str, Any] = marshal.load(file)  # noqa: S302 - spelld wrote it: nothing else has run here yet
        os.unlink(request_name)
    except FileNotFoundError:
        return None
    return request


def _env() -> dict[str, str]:
    """Return the image's environment variables, without those that Python added to its own (LC_CTYPE)."""
    with open("/proc/self/environ", "rb") as file:
        pairs = file.read().split(b"\0")
    return dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)


def _keep(request: dict[str, Any], line: int, log: int, times: int, secrets: dict[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    report = b'{"started_at": %r}\n'
    one = reaper.Reaper(request, log, secrets, lambda started_at: os.write(line, report % started_at), found.update)
    one.log_times = log_times.LogTimes(log, times)
    one.lead()
    return found


def as_json(value: object) -> str:
    """Return what `json.dumps` returns for a number, a text, None, or a dict of these.

    `import json` takes 7 to 12 ms of CPU time here (it brings `re`; median 9.7 ms of ten starts of Debian 12's Python
    3.11 with -I -S, each in a new container), and each container would pay it to write one line.
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
    """Count the processes of this container that the kernel killed because memory ran out."""
    for name in _OOM_FILES:
        try:
            with open(name) as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0
