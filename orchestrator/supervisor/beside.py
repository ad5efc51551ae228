"""Runs an additional command beside that of a process run: in its namespaces, where it has some.

It is a process of its own, started by spelld for each `spell exec`. Standard input has one line of JSON that says what to do,
and is then only kept open: when it is closed, nobody listens any more, and the command with all that it has started is
ended (HUP, a second later KILL). Standard output gets `{"started": true}` or `{"error": …}`, then `{"exit_code": …}`.

In namespaces the kernel ends everything with the run. Elsewhere this process is the subreaper of the command, and stays
until nothing of it is left: it kills that when the run's supervisor is gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import sys
import termios
import time
from typing import Any

from orchestrator.supervisor import identity, isolation
from orchestrator.supervisor.reaper import kill_descendants

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
_HANGUP_S = 1.0
_ROUNDS = 4
_LOOK_S = 0.05
_LEFT_LOOK_S = 1.0  # at what the command has left


def main() -> int:
    """Do what standard input says. Returns the exit status of this process."""
    words = b""
    while not words.endswith(b"\n"):
        if not (more := os.read(0, 1 << 16)):
            return 1
        words += more
    request = json.loads(words)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        watched = _Run(request["pid"], request["start_time"])
        is_inside = watched.join()
        if is_inside:
            isolation.be_unreachable()  # until it is the command, the child could still mount, and the run sees it
        else:
            isolation.adopt_orphans()
        pid, inner_pid = _start(request, is_inside=is_inside)
    except OSError as error:
        _say({"error": f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)})
        return 1
    for fd in set(request["fds"]):
        os.close(fd)
    _say({"started": True})
    _attend(watched, pid, inner_pid, request["token"], is_inside=is_inside)
    return 0


class _Run:
    """The run, by its supervisor.

    Raises:
        ProcessLookupError: it is over.
    """

    def __init__(self, pid: int, start_time: str) -> None:
        self.fd = os.pidfd_open(pid) if sys.platform == "linux" else None
        if identity.start_time(pid) != start_time:
            raise ProcessLookupError(3, "The run is over")
        self._pid, self._start_time = pid, start_time

    def join(self) -> bool:
        """Move this process into the namespaces of the run, its next children into its process namespace.

        Returns:
            False when the run has none of its own.
        """
        if sys.platform != "linux":
            return False
        folder = f"/proc/{self._pid}/ns"
        if os.readlink(f"{folder}/mnt") == os.readlink("/proc/self/ns/mnt"):
            return False
        kinds = [(_CLONE_NEWPID, "pid_for_children"), (_CLONE_NEWNS, "mnt")]
        if os.readlink(f"{folder}/user") != os.readlink("/proc/self/ns/user"):
            kinds.insert(0, (_CLONE_NEWUSER, "user"))
        opened = [(os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC), kind) for kind, name in kinds]
        libc = ctypes.CDLL(None, use_errno=True)
        for fd, kind in opened:
            if libc.setns(fd, kind) != 0:
                number = ctypes.get_errno()
                raise OSError(number, f"its namespaces cannot be entered: {os.strerror(number)}")
            os.close(fd)
        return True

    def is_over(self) -> bool:
        """Whether its supervisor is gone. Without pidfds, by its number."""
        if self.fd is None:
            return identity.start_time(self._pid) != self._start_time
        return bool(select.select([self.fd], [], [], 0)[0])


def _start(request: dict[str, Any], *, is_inside: bool) -> tuple[int, int]:
    """Fork the command. Returns its pid, and its pid as it sees it.

    Raises:
        OSError: it could not be started.
    """
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_fd, b"%d\n" % os.getpid())
            _become_command(request, is_inside=is_inside)
        except OSError as error:
            os.write(write_fd, f"{error.filename or ''}: {error.strerror}".encode(errors="backslashreplace"))
        finally:
            os._exit(127)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as told:
        inner, _, problem = told.read().partition(b"\n")
    if problem or not inner:
        os.waitpid(pid, 0)
        raise OSError(5, problem.decode(errors="replace") or "The run is over")
    return pid, int(inner)


def _become_command(request: dict[str, Any], *, is_inside: bool) -> None:
    os.setsid()
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):  # KILL, STOP, and those of the C library
            pass
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    isolation.die_with_parent(signal.SIGKILL)
    os.chdir(request["cwd"])
    if is_inside:
        isolation.give_up_mounting()
    for number, fd in enumerate(request["fds"]):
        os.dup2(fd, number)
    for fd in set(request["fds"]):  # all others close themselves
        os.close(fd)
    if request["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.umask(0o022)
    isolation.hold_to(request["cores"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it may hold secrets, and would be saved as an output
    argv, env = request["argv"], request["env"]
    os.execvpe(argv[0], argv, env)


def _attend(watched: _Run, pid: int, inner_pid: int, token: str, *, is_inside: bool) -> None:
    """Wait for the end of the command, of the run, or of who listens; and until nothing is left that only we can end."""
    child = os.pidfd_open(pid) if sys.platform == "linux" else None
    fds = [fd for fd in (0, child, watched.fd) if fd is not None]
    ender = 0
    while True:
        is_sure = pid and child is not None and not ender  # that one of them tells when to look
        wait_s = None if is_sure else _LOOK_S if pid or ender else _LEFT_LOOK_S
        ready = select.select(fds, [], [], wait_s)[0]
        if pid and (ended := os.waitpid(pid, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(ended[1])
            _say({"exit_code": code if code >= 0 else 128 - code})
            fds = [fd for fd in fds if fd != child]
            pid = 0
        if 0 in ready and not os.read(0, 1 << 16):
            fds.remove(0)
            ender = _end_session(inner_pid, token) if pid else 0
        if ender and os.waitpid(ender, os.WNOHANG)[0]:
            ender = 0
        if watched.is_over():
            fds = [fd for fd in fds if fd != watched.fd]  # in namespaces the kernel ends the command in this moment
            if not is_inside:
                kill_descendants()
                if pid:
                    _say({"exit_code": 128 + signal.SIGKILL})
                return
        if not pid and not ender and (is_inside or not _has_children()):
            return


def _has_children() -> bool:
    """Whether the command has left processes that we have adopted. Reaps those that have ended."""
    while True:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                return True
        except ChildProcessError:
            return False


def _end_session(session: int, token: str) -> int:
    """End the command and all that it has started: HUP as from a closed terminal, then KILL what is left.

    A child does it, as only it is in the process namespace of the run, in which process numbers mean something.

    Returns:
        Its pid.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        for number in (signal.SIGHUP, *[signal.SIGKILL] * _ROUNDS):
            found = [other for other in _processes() if _is_of(other, session, token)]
            for other in found:
                try:
                    os.kill(other, number)
                except OSError:
                    pass
            if not found:
                break
            deadline = time.monotonic() + (_HANGUP_S if number == signal.SIGHUP else _LOOK_S)
            while time.monotonic() < deadline and any(_is_of(other, session, token) for other in found):
                time.sleep(_LOOK_S)
    finally:
        os._exit(0)


def _processes() -> list[int]:
    return [pid for pid in identity.parents() if pid not in (1, os.getpid(), os.getppid())]


def _is_of(pid: int, session: int, token: str) -> bool:
    """Whether a process, which still lives, belongs to the session or has the token in its environment."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            if file.read().rpartition(b") ")[2][:1] == b"Z":
                return False
        if os.getsid(pid) == session:
            return True
        with open(f"/proc/{pid}/environ", "rb") as file:
            return token.encode() in file.read()
    except OSError:
        return False


def _say(words: dict[str, Any]) -> None:
    try:
        os.write(1, (json.dumps(words) + "\n").encode())
    except BrokenPipeError:  # spelld no longer listens
        pass
