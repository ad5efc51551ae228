"""The forkserver as the process executor has it: starts it, asks it for supervisors, ends what it has adopted.

The program itself is `supervisor/forkserver.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

import orchestrator
from orchestrator.supervisor.secrets_pipe import line_of

_PACKAGE_PARENT = str(Path(orchestrator.__file__).parent.parent)


def boot(modules: str, action: str) -> list[str]:
    """Return a command that imports modules of the supervisor, and does something with them."""
    words = (
        f"import sys; sys.path.insert(0, {_PACKAGE_PARENT!r}); from orchestrator.supervisor import {modules}; {action}"
    )
    # The interpreter itself, not the shim of a version manager or virtual environment, which costs up to 0.1 s.
    return [getattr(sys, "_base_executable", sys.executable), "-I", "-S", "-c", words]


PROBE = boot("forkserver, main", "sys.exit(forkserver.main() if sys.argv[1:] else main.probe())")
"""A command that ends with 0 where runs can have private namespaces."""
_POLL_S = 0.1
_TRIES = 3


class Forkserver:
    """The process that forks supervisors. It is started on demand, and again when it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: psutil.Popen | None = None

    def kill_orphans(self) -> None:
        """Kill what runs have left that killed their supervisors: the children of the forkserver that are no forks of it."""
        forkserver = self._process
        while forkserver:  # which keeps its number as long as we hold it: nobody has waited for it
            try:
                ours = forkserver.cmdline()
                found = [child for child in forkserver.children() if _is_foreign(child, ours)]
            except psutil.Error:
                return  # it was killed, too
            if not found:
                return
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()  # its children become children of the forkserver
            psutil.wait_procs(found, timeout=_POLL_S)

    def start(self, folder: Path, secrets: Mapping[str, str]) -> dict[str, Any]:
        """Start the supervisor of the attempt in `folder`. Returns its report; empty when it died before it reported."""
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb") as report:
            try:
                with (folder / "supervisor.log").open("ab") as errors:
                    fds = [write_fd, errors.fileno()]
                    if secrets:
                        self._send_with_secrets(os.fsencode(folder), fds, line_of(secrets))
                    else:
                        self._send(os.fsencode(folder), fds)
            finally:
                os.close(write_fd)
            line = report.readline()
        words: dict[str, Any] = json.loads(line) if line else {}
        return words

    def _send_with_secrets(self, message: bytes, fds: list[int], line: bytes) -> None:
        """Send the message with a pipe, and write this line into the pipe."""
        read_fd, write_fd = os.pipe()
        with os.fdopen(write_fd, "wb", buffering=0) as pipe:
            try:
                self._send(message, [*fds, read_fd])
            finally:
                os.close(read_fd)
            left = memoryview(line)
            with contextlib.suppress(BrokenPipeError):  # the supervisor is gone, as its report says
                while left:
                    left = left[pipe.write(left) or 0 :]

    def _send(self, message: bytes, fds: list[int]) -> None:
        with self._lock:
            for left in reversed(range(_TRIES)):
                if self._socket is None:
                    self._socket = self._open()
                try:
                    socket.send_fds(self._socket, [message], fds)
                except OSError:  # it was killed, perhaps before it had begun
                    self._socket.close()
                    self._socket = None
                    if not left:
                        raise
                else:
                    return

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            options: dict[str, Any] = dict(stdin=theirs.fileno(), start_new_session=True, cwd="/", env={})
            self._process = psutil.Popen([*PROBE, "forkserver"], **options)
        return ours


def _is_foreign(process: psutil.Process, ours: list[str]) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.cmdline() != ours
    except psutil.Error:
        return False
