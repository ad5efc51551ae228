"""The supervisor of one attempt of a run, forked by `forkserver`.

Files in the attempt's folder:

    request.json   what to do, written by spelld before it starts us (readable only by the owner: it holds the environment)
    claim.json     which process does it. Made by link(2), so exactly one process wins: this supervisor, or a restarted
                   spelld that counts the attempt as never started. The loser touches nothing.
    verdict.json   how it ended; durable before the supervisor exits, and so before any process learns of it

The first line on standard output tells spelld that the command has started, or why not. spelld need not listen after that.
SIGTERM stops the run, SIGUSR1 kills it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.supervisor import identity, isolation, log_times, reaper
from orchestrator.supervisor.secrets_pipe import read_secrets
from orchestrator.supervisor.verdict import VERSION, MountError, verdict_of, words_of

_VERDICT_BYTES = 4096


def claim(folder: Path, owner: dict[str, Any]) -> bool:
    """Take the attempt, exactly once. Returns False when another process took it before."""
    own = folder / f"claim-{os.getpid()}-{time.monotonic_ns()}.tmp"
    try:
        _write_durably(own, owner)
        os.link(own, folder / "claim.json")
    except FileExistsError:
        return False
    finally:
        own.unlink(missing_ok=True)
    _sync_folder(folder)
    return True


def myself() -> dict[str, Any]:
    """Return this process as a claim names it."""
    pid = os.getpid()
    return {"version": VERSION, "pid": pid, "boot_id": identity.boot_id(), "start_time": identity.start_time(pid)}


def main(folder_name: str, secrets_fd: int | None = None) -> int:
    """Supervise the attempt in this folder to its end. Returns the exit status of the supervisor itself.

    Args:
        secrets_fd: a pipe with the run's secrets; None when it has none.
    """
    folder = Path(folder_name)
    request = _request(folder)
    secrets = {} if secrets_fd is None else read_secrets(secrets_fd)
    if secrets is None:
        return 1  # spelld was killed; the next one finds that nothing was started
    signal.pthread_sigmask(signal.SIG_BLOCK, reaper.SIGNALS)
    try:
        if request is None or not claim(folder, myself()):
            _report({"taken": True})
            return 0
        files = _Files(folder, request["log"])
    except OSError as error:
        _report({"error": words_of(error)})
        return 1
    verdict = verdict_of(lambda: _supervise(request, files, secrets), files.folder, _oom_kills, only_when_killed=True)
    files.publish(verdict)
    if verdict["error"]:
        _report({"error": verdict["error"]})
    return 0


def _request(folder: Path) -> dict[str, Any] | None:
    """Read the request; None when it was removed, because another process has taken the attempt."""
    try:
        words: dict[str, Any] = json.loads((folder / "request.json").read_bytes())
    except FileNotFoundError:
        return None
    return words


def _supervise(request: dict[str, Any], files: _Files, secrets: dict[str, bytes]) -> dict[str, Any]:
    """Run the command under a reaper. Returns the fields of the verdict that the reaper fills in."""
    if request["isolation"] == "namespaces":
        isolation.enter_namespaces()
        try:
            isolation.bind_all(request["binds"])
        except OSError as error:
            raise MountError(error.errno, error.strerror, error.filename) from error
    else:
        isolation.adopt_orphans()  # the descendants of a reaper that is killed
    result_read, result_write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(result_read)
        os.close(go_write)
        one = reaper.Reaper(request, files.log, secrets, _report_start, lambda words: _say(result_write, words))
        one.log_times = log_times.LogTimes(files.log, files.times)
        _be_reaper(one, go_read)
    os.close(result_write)
    os.close(go_read)
    os.write(go_write, b"g")
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        signalled = signal.sigwaitinfo(reaper.SIGNALS).si_signo
        if signalled != signal.SIGCHLD:
            os.kill(pid, signalled)
            os.kill(pid, signal.SIGCONT)
    words = b"".join(iter(lambda: os.read(result_read, 65536), b"")).splitlines()
    reaper.kill_descendants()  # a killed reaper has left them to us
    if words:
        return dict(json.loads(words[-1]))
    lost = {"reason": "supervisor_lost", "detail": f"the run's reaper, process {pid}, was killed"}
    return {"signal": int(signal.SIGKILL), "error": lost}


def _be_reaper(one: reaper.Reaper, go_fd: int) -> None:
    try:
        one.run(go_fd)
    except OSError as error:
        one.on_end({"error": words_of(error)})
    finally:
        os._exit(1)


class _Files:
    """Log and verdict, opened before the run gets its view of the disk: the run can neither reach nor replace them, and
    they are found in a home that is moved meanwhile.

    Disk space for the verdict is reserved in advance, so that it can be written when the run has filled the disk.
    """

    def __init__(self, folder: Path, log: str) -> None:
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.times = os.open(f"{log}.times", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._verdict = os.open("verdict.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=self.folder)
        if sys.platform == "linux":
            os.posix_fallocate(self._verdict, 0, _VERDICT_BYTES)
        else:
            os.pwrite(self._verdict, b" " * _VERDICT_BYTES, 0)

    def publish(self, verdict: dict[str, Any]) -> None:
        """Make log and verdict durable, in this order, then publish the verdict."""
        os.fsync(self.log)
        os.pwrite(self._verdict, json.dumps(verdict).encode().ljust(_VERDICT_BYTES), 0)
        os.fsync(self._verdict)
        os.rename("verdict.tmp", "verdict.json", src_dir_fd=self.folder, dst_dir_fd=self.folder)
        os.fsync(self.folder)


def _report(words: dict[str, Any]) -> None:
    _say(sys.stdout.fileno(), words)


def _report_start(started_at: float) -> None:
    _report({"started_at": started_at})
    os.close(sys.stdout.fileno())


def _say(fd: int, words: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # spelld no longer listens; the run goes on and ends without it
        os.write(fd, (json.dumps(words) + "\n").encode())


def _write_durably(path: Path, value: dict[str, Any]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, json.dumps(value).encode())
    os.fsync(fd)
    os.close(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _oom_kills() -> int:
    """Count the processes that the kernel killed since boot because memory ran out; 0 where it does not count them."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def probe() -> int:
    """Exit with status 0 when the kernel allows private namespaces with a separate `/proc`."""
    try:
        isolation.enter_namespaces()
        pid = os.fork()
        if pid == 0:
            try:
                isolation.mount_proc()
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except OSError:
        return 1
