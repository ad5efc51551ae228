"""Where supervisors come from: a process that has loaded all that one needs, and forks it in a millisecond.

Starting an interpreter for each run takes 20 times as long. spelld keeps one forkserver; it ends with spelld, its
supervisors do not. Each message on the socket is the folder of an attempt, with two descriptors: the supervisor's
standard output (its report to spelld) and its standard error; a third one is a pipe that tells secrets.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from orchestrator.supervisor import main as supervisor

_MESSAGE_BYTES = 65536
_SECRETS = 3  # the descriptor that tells them
_FAILED = 70  # EX_SOFTWARE of sysexits.h; nobody waits for it, but a debugger may look


def main() -> int:
    """Serve the socket on standard input until its other end is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps supervisors: nobody waits for them here
    requests = socket.socket(fileno=os.dup(0))
    while True:
        message, fds, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 3)
        if not message:
            return 0
        try:
            pid = os.fork()
        except OSError:
            pid = -1  # too many processes: spelld sees the end of the report without a word
        if pid == 0:
            requests.close()
            _become_supervisor(os.fsdecode(message), fds)
        for fd in fds:
            os.close(fd)


def _become_supervisor(folder: str, fds: list[int]) -> None:
    status = _FAILED
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        empty = os.open(os.devnull, os.O_RDONLY)
        for number, fd in enumerate((empty, *fds)):
            os.dup2(fd, number)
            os.close(fd)
        status = supervisor.main(folder, _SECRETS if len(fds) > 2 else None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)
