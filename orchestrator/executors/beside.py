"""An additional command beside that of a process run, as the process executor has it.

The program that enters the run's namespaces and starts the command is `supervisor/beside.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import secrets
import select
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.errors import Conflict
from orchestrator.executors.forkserver import boot
from orchestrator.executors.running_exec import RunningExec
from orchestrator.executors.shell import argv

_TOKEN = "SPELL_SESSION"  # noqa: S105  a name
_COMMAND = boot("beside", "sys.exit(beside.main())")
_CHUNK_BYTES = 64 << 10
_KILLED = 137
_WRITE_POLL_MS = 200
_END_OF_INPUT = b"\x04"  # ^D, as a terminal has no other
_CLOSE_LIMIT_S = 2.0


class ProcessExec(RunningExec):
    """A command beside that of a process run.

    Args:
        owner: the run's supervisor: `pid` and `start_time`.
        command: see `shell.argv`.
        env: all environment variables of the command.
        cwd: its working directory.
        cores: those that it is held to; empty for any.
        terminal: whether it gets a terminal.
        is_run_over: waits for a moment, and returns whether the run has ended.

    Raises:
        Conflict: the run is over.
        OSError: no process can be started now.
    """

    def __init__(
        self,
        owner: Mapping[str, str | int],
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        cores: Sequence[int],
        *,
        terminal: bool,
        is_run_over: Callable[[], bool],
    ) -> None:
        self._terminal, self._is_run_over = terminal, is_run_over
        self._exit_code: int | None = None
        self._closed = threading.Event()
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        theirs = self._open_streams()
        token = secrets.token_hex(16)
        request = {
            "pid": owner["pid"],
            "start_time": owner["start_time"],
            "argv": argv(command, terminal=terminal),
            "env": {**env, _TOKEN: token},
            "cwd": cwd,
            "cores": list(cores),
            "terminal": terminal,
            "fds": theirs,
            "token": f"{_TOKEN}={token}",
        }
        try:
            self._process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=set(theirs),
                start_new_session=True,
                cwd="/",
                env={},
                bufsize=0,
            )
        finally:
            for fd in set(theirs):
                os.close(fd)
        threading.Thread(target=self._process.wait, name="exec", daemon=True).start()
        assert self._process.stdin
        assert self._process.stdout
        self._line, self._result = self._process.stdin, self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            _write_whole(self._line.fileno(), (json.dumps(request) + "\n").encode())
        told = self._heard()
        if not told.get("started"):
            self.close()
            raise Conflict(f"No command can be started beside the run now: {told.get('error', 'it is over')}.")

    def _open_streams(self) -> list[int]:
        """Make terminal or pipes. Returns the ends for standard input, output and error of the command."""
        if self._terminal:
            self._input, slave = pty.openpty()
            os.set_blocking(self._input, False)
            self._outputs = {self._input: 1}
            return [slave, slave, slave]
        stdin, self._input = os.pipe()
        out, stdout = os.pipe()
        err, stderr = os.pipe()
        os.set_blocking(self._input, False)
        self._outputs = {out: 1, err: 2}
        return [stdin, stdout, stderr]

    def _heard(self) -> dict[str, Any]:
        """Read a line of the program. {} when it has ended."""
        words = b""
        while not words.endswith(b"\n"):
            if not (more := os.read(self._result.fileno(), _CHUNK_BYTES)):
                return {}
            words += more
        found: dict[str, Any] = json.loads(words.splitlines()[0])
        if b"\n" in words[:-1]:  # both lines at once: the command was that quick
            found |= json.loads(words.splitlines()[1])
        if "exit_code" in found:
            self._exit_code = int(found["exit_code"])
        return found

    def read(self) -> Iterator[tuple[int, bytes]]:
        with self._reading:
            poll = select.poll()
            result = self._result.fileno()
            for fd in (*self._outputs, result, self._wake_read):
                poll.register(fd, select.POLLIN)
            while not self._closed.is_set():
                ready = {fd for fd, _ in poll.poll(None if self._exit_code is None else 0)}
                if self._exit_code is not None and not ready - {result}:
                    return  # it has ended, and all that it has written was passed on
                if result in ready and self._exit_code is None and not self._heard():
                    self._exit_code = _KILLED
                for fd in ready & self._outputs.keys():
                    data = _read(fd)
                    if data:
                        yield self._outputs[fd], data
                    elif data is not None:
                        poll.unregister(fd)

    def write(self, data: bytes) -> None:
        with self._writing:
            if self._closed.is_set() or self._input < 0:
                return
            if not data and not self._terminal:
                os.close(self._input)
                self._input = -1
                return
            left = memoryview(data or _END_OF_INPUT)
            while left and not self._closed.is_set() and self._exit_code is None:
                try:
                    left = left[os.write(self._input, left) :]
                except BlockingIOError:
                    poll = select.poll()
                    poll.register(self._input, select.POLLOUT)
                    poll.poll(_WRITE_POLL_MS)
                except OSError:  # it reads no more
                    return

    def resize(self, columns: int, rows: int) -> None:
        with self._writing:
            if self._terminal and not self._closed.is_set():
                with contextlib.suppress(OSError):
                    fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def exit_code(self) -> int:
        if self._exit_code is None:
            self._exit_code = _KILLED
        self.run_is_over = self._exit_code == _KILLED and not self._closed.is_set() and self._is_run_over()
        return self._exit_code

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        os.write(self._wake_write, b"\0")
        self._line.close()  # the program ends what it has started
        held = [lock for lock in (self._reading, self._writing) if lock.acquire(timeout=_CLOSE_LIMIT_S)]
        if len(held) == 2:  # else a thread still uses them: better lost than taken for others
            for fd in {self._input, *self._outputs, self._wake_read, self._wake_write} - {-1}:
                os.close(fd)
            self._result.close()
        for lock in held:
            lock.release()


def _read(fd: int) -> bytes | None:
    """Read what is there: b"" at the end, None for nothing now."""
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return None
    except OSError:  # EIO: nobody has the terminal open any more
        return b""


def _write_whole(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
