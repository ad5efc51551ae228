"""The parent of the command: it starts it, reaps every orphan, and lets no process of the run outlive it.

In a process namespace or a container the reaper is its init, and the kernel ends everything with it. Elsewhere it is a
subreaper: it adopts every descendant (setsid, nohup, double fork alike) and kills them until none is left.

    SIGTERM   stop: TERM to all, the grace time, KILL
    SIGUSR1   kill: KILL to all at once; also sent by the kernel when the supervisor dies
"""

from __future__ import annotations

import os
import resource
import select
import time

from orchestrator.supervisor import identity, isolation
from orchestrator.supervisor.log_limit import LogLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any

    from orchestrator.supervisor.log_times import LogTimes
    from orchestrator.supervisor.masking import MaskedLog
else:
    import _signal as signal

SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1}
_KILL_ROUND_S = 0.01


class Reaper:
    """Runs one command to its end.

    Args:
        secrets: further variables of the command, which are masked in its log.
        on_start: called with the time (seconds since the epoch) when the command has been started.
        on_end: called with the fields of the verdict that the reaper knows, when the command has ended or did not start.
    """

    def __init__(
        self,
        request: dict[str, Any],
        log_fd: int,
        secrets: dict[str, bytes],
        on_start: Callable[[float], object],
        on_end: Callable[[dict[str, Any]], object],
    ) -> None:
        self.request, self.secrets = request, secrets
        self.log_fd = log_fd
        self.on_start, self.on_end = on_start, on_end
        self.log = LogLimit(log_fd, request.get("log_bytes"))
        self.started_at = 0.0
        self.is_init = request["isolation"] != "none"
        self.command_pid = 0
        self.command_over = False
        self.stop_deadline: float | None = None
        self.timed_out = False
        self.log_times: LogTimes | None = None

    def run(self, go_fd: int) -> None:
        """Wait for a byte on `go_fd`, then `lead`. Never returns."""
        isolation.die_with_parent(signal.SIGKILL if self.is_init else signal.SIGUSR1)
        if not os.read(go_fd, 1) or _hung_up(go_fd):
            os._exit(1)  # the supervisor died before it said go, or before the kernel would have signalled its death
        if self.is_init:
            isolation.mount_proc()
        else:
            isolation.adopt_orphans()
        self.lead()
        os._exit(0)

    def lead(self) -> None:
        """Run the command, write its result, and return when no process of the run is left."""
        started = time.monotonic()
        lack = self._lacking_gpus()
        if lack:
            self.on_end({"error": {"reason": "executor_failed", "detail": lack}})
            return
        masked = self._mask()
        self.command_pid = self._start()
        if masked:
            masked.begin()
        if self.command_pid:
            self.started_at = time.time()
            self.on_start(self.started_at)
            if self.log_times:
                self.log_times.begin()
            self._watch(started)
        if masked:
            masked.end()
        if self.log_times:
            self.log_times.note()

    def _lacking_gpus(self) -> str:
        """Return why the command cannot have the GPUs of the run; "" when it can, or has none."""
        asked = self.request.get("gpus")
        if not asked:
            return ""
        from orchestrator.supervisor import gpus  # 0.1 ms, and few runs have GPUs

        lack = gpus.lacking(asked["indices"], self.request["env"])
        return f"{lack}. {asked['cure']}" if lack else ""

    def _mask(self) -> MaskedLog | None:
        """Put a masking pipe in front of the log if the run has secrets that can be masked."""
        if not self.secrets:
            return None
        from orchestrator.supervisor import masking  # 5 ms in a container: threading; few runs have secrets

        patterns = masking.patterns_of(self.secrets.values())
        if not patterns:
            return None
        masked = masking.MaskedLog(self.log_fd, patterns)
        self.log_fd = masked.fd
        return masked

    def _start(self) -> int:
        """Fork the command. Returns its pid, or 0 when it could not be started, which is reported."""
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self._become_command()
            except BaseException as error:  # this process must not go on as a second reaper
                words = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else repr(error)
                os.write(write_fd, words.encode(errors="backslashreplace"))
            finally:
                os._exit(127)
        os.close(write_fd)
        problem = b"".join(iter(lambda: os.read(read_fd, 4096), b"")).decode(errors="replace")
        os.close(read_fd)
        if problem:
            self.on_end({"error": {"reason": "executor_failed", "detail": problem}})
            return 0
        return pid

    def _become_command(self) -> None:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        for number in range(1, signal.NSIG):  # spelld, or the process that started it, may ignore some
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):  # KILL, STOP, and those of the C library
                pass
        os.chdir(self.request["cwd"])
        if self.request["isolation"] == "namespaces":
            isolation.give_up_mounting()
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.dup2(self.log_fd, 1)
        os.dup2(self.log_fd, 2)
        os.umask(0o022)
        isolation.hold_to(self.request.get("cores", ()))
        if self.secrets:  # a core dump would hold them, and would be saved as an output
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        argv = self.request["argv"]
        os.execve(argv[0], argv, {**self.request["env"], **self.secrets})

    def _watch(self, started: float) -> None:
        limit_s = self.request["timeout_s"]
        limit = started + limit_s if limit_s is not None else None
        while True:
            self._reap()
            if self.command_over and (self.stop_deadline is None or not self._children_left()):
                break
            now = time.monotonic()
            if limit is not None and now >= limit and self.stop_deadline is None:
                self.timed_out = True
                self._stop(now)
            if self.stop_deadline is not None and now >= self.stop_deadline:
                break
            wake = self.stop_deadline if self.stop_deadline is not None else limit
            waits_s = (self.log.hold(), None if wake is None else wake - now)
            wait_s = min((wait_s for wait_s in waits_s if wait_s is not None), default=None)
            self._handle(
                signal.sigwaitinfo(SIGNALS) if wait_s is None else signal.sigtimedwait(SIGNALS, max(0.0, wait_s))
            )
        self._kill_all()
        self.log.hold()

    def _handle(self, info: signal.struct_siginfo | None) -> None:
        if info is None:
            return
        if info.si_signo == signal.SIGTERM and self.stop_deadline is None:
            self._stop(time.monotonic())
        elif info.si_signo == signal.SIGUSR1:
            self.stop_deadline = 0.0

    def _stop(self, now: float) -> None:
        self.stop_deadline = now + self.request["grace_s"]
        self._signal_all(signal.SIGTERM)
        self._signal_all(signal.SIGCONT)  # a suspended process handles TERM only when it is resumed

    def _signal_all(self, number: int) -> None:
        if self.is_init:
            _kill(-1, number)
            return
        for pid in identity.descendants(os.getpid()):
            _kill(pid, number)

    def _children_left(self) -> bool:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.command_pid:
                self._tell_end(status, usage.ru_maxrss)

    def _tell_end(self, status: int, max_rss_kib: int) -> None:
        self.command_over = True
        signalled = os.WIFSIGNALED(status)
        self.on_end(
            {
                "exit_code": None if signalled else os.WEXITSTATUS(status),
                "signal": os.WTERMSIG(status) if signalled else None,
                "timed_out": self.timed_out,
                "started_at": self.started_at,
                "max_rss_bytes": max_rss_kib * 1024,
            }
        )

    def _kill_all(self) -> None:
        """Send KILL until no process is left: one may fork while the list is read."""
        while True:
            self._signal_all(signal.SIGKILL)
            self._reap()
            if not self._children_left():
                return
            signal.sigtimedwait({signal.SIGCHLD}, _KILL_ROUND_S)


def _kill(pid: int, number: int) -> None:
    """Send a signal; no error when the process is gone or out of reach."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def kill_descendants() -> None:
    """KILL and reap all descendants of the caller until none is left. The caller must be their subreaper."""
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in identity.descendants(os.getpid()):
            _kill(pid, signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, _KILL_ROUND_S)


def _hung_up(fd: int) -> bool:
    """Whether the other end of this pipe is closed."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))
