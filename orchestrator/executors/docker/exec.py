"""An additional command in the container of a run: an exec of the engine.

The engine lets an exec go on when its client has gone. So each exec has a token in its environment, which all that it
starts inherit; and the engine makes each the leader of a kernel session. When the exec is closed, another exec finds
the processes with the token or of the session, and ends them. It runs inside the container, with its `sh` and `grep`,
because only there process numbers are certain, whatever the engine runs in.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.engine.connection import Engine, EngineError
from orchestrator.engine.hijack import start_exec
from orchestrator.errors import Conflict
from orchestrator.executors.running_exec import RunningExec
from orchestrator.executors.shell import argv

_log = logging.getLogger(__name__)
_TOKEN = "SPELL_SESSION"  # noqa: S105  a name
# HUP as from a closed terminal; a second later, what is left is killed, and what was started meanwhile.
_END = """
of_session() {
    [ "$2" ] && read -r words < "$1/stat" && set -- $2 ${words##*) } && [ "$1" = "$5" ]
}
for sign in HUP KILL KILL KILL KILL; do
    found=
    for folder in /proc/[0-9]*; do
        if grep -q "$1" "$folder/environ" || of_session "$folder" "$2"; then
            found=1
            kill -$sign "${folder#/proc/}"
        fi
    done 2>/dev/null
    [ "$found" ] || exit 0
    [ $sign = KILL ] || sleep 1
done
"""
# The engine detaches from a terminal when it reads these keys, so we choose keys that no person types.
_DETACH_KEYS = ",".join(["ctrl-@"] * 8)
_HEADER = struct.Struct(">BxxxI")  # of each piece of output without a terminal
_CHUNK_BYTES = 64 << 10
_GONE = (404, 409)  # the container does not exist; it does not run
_KILLED = 137
_LOOK_S, _SLOW_LOOK_S = 0.01, 0.2
_RESIZE_TRIES = 20
_END_LIMIT_S = 2.0


class DockerExec(RunningExec):
    """A command in a running container.

    Args:
        engine: whose container it is.
        container: its name.
        command: program and arguments; a single word is a line for a shell; empty for the shell itself (bash if the
            container has it).
        env: all environment variables of the command.
        cwd: its working directory.
        terminal: whether it gets a terminal.

    Raises:
        Conflict: when the container does not run.
        EngineError: when it could not be started.
    """

    def __init__(
        self,
        engine: Engine,
        container: str,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        *,
        terminal: bool,
    ) -> None:
        self._engine, self._container, self._terminal = engine, container, terminal
        self._token = f"{_TOKEN}={secrets.token_hex(16)}"
        self._exit_code: int | None = None
        self._closed = threading.Event()
        self._id = self._create(argv(command, terminal=terminal), env, cwd)
        self._socket = start_exec(engine, self._id, terminal=terminal)

    def _create(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> str:
        try:
            with self._engine.translated_errors():
                created: dict[str, str] = self._engine.api.exec_create(
                    self._container,
                    list(argv),
                    stdin=True,
                    tty=self._terminal,
                    environment=[*(f"{name}={value}" for name, value in env.items()), self._token],
                    workdir=cwd,
                    user=self._engine.user,
                    detach_keys=_DETACH_KEYS,
                )
        except EngineError as error:
            if error.status in _GONE:
                raise Conflict(f"No command can be started in its container now: {error.message}") from error
            raise
        return created["Id"]

    def read(self) -> Iterator[tuple[int, bytes]]:
        try:
            yield from self._read_raw() if self._terminal else self._read_framed()
        except OSError:  # the engine ended, or another thread called `close`
            return

    def _read_raw(self) -> Iterator[tuple[int, bytes]]:
        while data := self._socket.recv(_CHUNK_BYTES):
            yield 1, data

    def _read_framed(self) -> Iterator[tuple[int, bytes]]:
        with self._socket.makefile("rb") as stream:
            while len(header := stream.read(_HEADER.size)) == _HEADER.size:
                channel, left = _HEADER.unpack(header)
                while left and (data := stream.read(min(left, _CHUNK_BYTES))):
                    left -= len(data)
                    yield (2 if channel == 2 else 1), data

    def write(self, data: bytes) -> None:
        try:
            if data:
                self._socket.sendall(data)
            else:
                self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # it reads no more
            return

    def resize(self, columns: int, rows: int) -> None:
        for _ in range(_RESIZE_TRIES):  # a command that just started may have no terminal yet
            try:
                with self._engine.translated_errors():
                    self._engine.api.exec_resize(self._id, height=rows, width=columns)
            except EngineError:
                if self._closed.wait(_LOOK_S) or not self._state().get("Running"):
                    return
            else:
                return

    def exit_code(self) -> int:
        pause_s = _LOOK_S
        while self._exit_code is None:
            state = self._state()
            if state.get("Running") and not self._closed.is_set():
                time.sleep(pause_s)  # it has closed its output, or is ending
                pause_s = min(2 * pause_s, _SLOW_LOOK_S)
                continue
            code = state.get("ExitCode")
            self._exit_code = _KILLED if code is None else int(code)
            self.run_is_over = self._exit_code == _KILLED and self._container_ends()
        return self._exit_code

    def _container_ends(self) -> bool:
        """Whether the container is gone, or will be in a moment: its processes are killed before it is removed."""
        deadline = time.monotonic() + _END_LIMIT_S
        while time.monotonic() < deadline:
            try:
                with self._engine.translated_errors():
                    if not self._engine.api.inspect_container(self._container)["State"]["Running"]:
                        return True
            except EngineError as error:
                return error.status in _GONE
            if self._closed.wait(_SLOW_LOOK_S):
                break
        return False

    def close(self) -> None:
        self._closed.set()
        if self._exit_code is None and self._state().get("Running"):
            self._end()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the threads that read and write
        self._socket.close()

    def _state(self) -> dict[str, Any]:
        """Return what the engine knows about the exec; empty when container or engine is gone."""
        try:
            with self._engine.translated_errors():
                return dict(self._engine.api.exec_inspect(self._id))
        except EngineError:
            return {}

    def _end(self) -> None:
        """End the command and all that it has started, without waiting."""
        try:
            with self._engine.translated_errors():
                api = self._engine.api
                argv = ["sh", "-c", _END, "sh", self._token, _inner_pid(self._state().get("Pid"))]
                ended = api.exec_create(self._container, argv, stdout=False, stderr=False, user=self._engine.user)
                api.exec_start(ended["Id"], detach=True)
        except EngineError as error:
            if error.status not in _GONE:
                _log.warning("a command in container %s may still run: %s", self._container, error.message)


def _inner_pid(pid: int | None) -> str:
    """Return the pid of a container's process inside the container; "" where it is not visible to us."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""
    inner = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return inner[-1] if len(inner) > 1 and inner[-1] != "1" else ""  # 1 would be the run's own reaper
