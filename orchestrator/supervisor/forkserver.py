"""The process that forks supervisors. It has loaded all that a supervisor needs, so a fork takes a millisecond.

Starting an interpreter for each run takes 20 times as long. As nothing is loaded later, runs that start after an upgrade of
spell get the supervisor of the spelld that still serves, not half of it from the new files. spelld keeps one forkserver, which ends with spelld; its
supervisors go on. Each message on the socket is the folder of an attempt, with two file descriptors: the supervisor's
standard output (its report to spelld) and standard error. A third one, if present, is a pipe with the run's secrets.

It adopts what a run leaves that has killed both its supervisor and its reaper. So these processes can be found without the mark
in their environment: a child of the forkserver with another command line than its own is one of them. spelld ends them. It
does not find one that shows the command line of the forkserver, nor those of a forkserver that was killed.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from orchestrator.supervisor import gpus, masking  # noqa: F401 - loaded here, because the reaper loads them late
from orchestrator.supervisor import main as supervisor
from orchestrator.supervisor.isolation import adopt_orphans

_MESSAGE_BYTES = 65536
_SECRETS = 3  # the file descriptor they are read from
_FAILED = 70  # EX_SOFTWARE of sysexits.h; no process waits for it, but a debugger may look


def main() -> int:
    """Serve the socket on standard input until its other end is closed. Returns the exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps supervisors: we do not wait for them
    adopt_orphans()
    requests = socket.socket(fileno=os.dup(0))
    while True:
        message, fds, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 3)
        if not message:
            return 0
        try:
            pid = os.fork()
        except OSError:
            pid = -1  # too many processes: spelld reads an empty report
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
