"""Connections to the ports of a container, whatever its network: a program inside opens them, and passes them to us.

That program is `orchestrator/inside/ports.py`, started by an exec of the engine when a port of the container is first asked
for. It connects to a Unix socket in the folder that both sides see, and ends with that connection. So a
forwarded byte passes neither the engine nor another process, and a container without a network has ports, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.engine.connection import Engine
from orchestrator.errors import ExecutorFailed
from orchestrator.executors.docker import places
from orchestrator.records.ports import PortRecord

_START_LIMIT_S = 20.0
_ANSWER_LIMIT_S = 10.0
_MESSAGE_BYTES = 1 << 18
_PORTS = range(1, 1 << 16)
_BOOT = (
    f"import sys; sys.path.insert(0, {places.REAPER!r}); from orchestrator.inside import ports; ports.main(sys.argv[1])"
)


class Answer(NamedTuple):
    """What the program in a container answers. The run can put another program in the place of ours.

    Attributes:
        ports: that something listens on.
        error: why a port does not answer; "" if it does.
        connection: to the port; None if nothing listens on it.
    """

    ports: list[PortRecord]
    error: str
    connection: socket.socket | None


class Ports:
    """The ports of one engine's containers. Any thread may call it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()

    def list(self, container: str, folder: Path) -> Sequence[PortRecord]:
        """Return the ports that its programs listen on.

        Args:
            container: its name.
            folder: that of its attempt.

        Raises:
            ExecutorFailed: when it does not answer, perhaps because it is over.
        """
        answer = self._ask(container, folder, b"list")
        if answer.connection:
            answer.connection.close()
        return answer.ports

    def connect(self, container: str, folder: Path, port: int) -> socket.socket | None:
        """Return a connection to a port; None where nothing listens on it. Arguments and errors as of `list`."""
        answer = self._ask(container, folder, b"%d" % port)
        if answer.connection is None and answer.error:
            raise ExecutorFailed(f"port {port} does not answer: {answer.error}")
        return answer.connection

    def forget(self, container: str) -> None:
        """End the program in a container that is over."""
        with self._lock:
            line = self._lines.pop(container, None)
        if line:
            line.close()

    def _ask(self, container: str, folder: Path, request: bytes) -> Answer:
        with self._lock:
            line = self._lines.setdefault(container, _Line(self._engine, container, folder))
        try:
            return line.ask(request)
        except (OSError, ValueError) as error:
            self.forget(container)
            raise ExecutorFailed(f"the program that opens ports in its container does not answer: {error}") from error


class _Line:
    """The connection to the program in one container, which is started when it is needed."""

    def __init__(self, engine: Engine, container: str, folder: Path) -> None:
        self._engine, self._container, self._folder = engine, container, folder
        self._line: socket.socket | None = None
        self._lock = threading.Lock()

    def ask(self, request: bytes) -> Answer:
        with self._lock:
            if self._line:
                with contextlib.suppress(OSError):  # it had nothing to do for a while, and ended
                    return asked(self._line, request)
            self._line = self._start()
            return asked(self._line, request)

    def close(self) -> None:
        with self._lock:
            if self._line:
                self._line.close()
            self._line = None

    def _start(self) -> socket.socket:
        name = f"ports-{secrets.token_hex(4)}"
        with _listening(self._folder / "inside", name) as listener:
            self._begin(f"{places.INSIDE}/{name}")
            listener.settimeout(_START_LIMIT_S)
            line, _ = listener.accept()
        line.settimeout(_ANSWER_LIMIT_S)
        return line

    def _begin(self, path: str) -> None:
        """Start the program, with the Python that the container's first process runs on."""
        with self._engine.translated_errors():
            api = self._engine.api
            python = api.inspect_container(self._container)["Path"]
            argv = [python, "-I", "-S", "-B", "-c", _BOOT, path]
            made = api.exec_create(
                self._container, argv, stdout=False, stderr=False, workdir="/", user=self._engine.user
            )
            api.exec_start(made["Id"], detach=True)


def asked(line: socket.socket, request: bytes) -> Answer:
    """Send a request, and return the answer with the connection that came with it.

    Raises:
        OSError: it has ended, or does not answer.
        ValueError: it answers something else. The connection that came with that is closed.
    """
    line.send(request)
    words, fds, _, _ = socket.recv_fds(line, _MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    with contextlib.ExitStack() as unless_good:
        for fd in fds:
            unless_good.callback(os.close, fd)
        if not words:
            raise ConnectionResetError("it has ended")
        ports, error = _read(words)
        if not all(stat.S_ISSOCK(os.fstat(fd).st_mode) for fd in fds):
            raise ValueError("it passed something else than a connection")
        connection = socket.socket(fileno=fds[0]) if fds else None
        unless_good.pop_all()
    return Answer(ports, error, connection)


def _read(words: bytes) -> tuple[list[PortRecord], str]:
    try:
        found = json.loads(words)
    except (ValueError, RecursionError):
        found = None
    is_known = isinstance(found, dict)
    rows, error = (found.get("ports", []), found.get("error", "")) if is_known else ((), "")
    if not is_known or not isinstance(rows, list) or not isinstance(error, str) or not all(map(_is_row, rows)):
        raise ValueError("its answer has another form")
    return [PortRecord(*row) for row in rows], error


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and [type(part) for part in row] == [int, str, str] and row[0] in _PORTS


@contextlib.contextmanager
def _listening(folder: Path, name: str) -> Iterator[socket.socket]:
    """Listen at a Unix socket in a folder. Its path may be longer than an address can be: the kernel finds it by the folder."""
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(f"/proc/self/fd/{at}/{name}")
            try:
                listener.listen(1)
                yield listener
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=at)
    finally:
        os.close(at)
