"""Commands beside that of a run, on the client's side. `orchestrator/server/exec.py` describes the protocol."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, unix_connect

from orchestrator.client.transport import Transport, quote
from orchestrator.errors import InvalidConfig, ServerUnavailable, from_wire
from orchestrator.home import Home
from orchestrator.records import API_VERSION
from orchestrator.spec.type_checks import several

_WINDOW_BYTES = 1 << 20  # maximum of input that the command has not read yet
_CHUNK_BYTES = 64 << 10
_CLOSE_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Size of a terminal in characters."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that a command wrote.

    Attributes:
        stream: 1 for stdout, 2 for stderr.
    """

    stream: int
    data: bytes


class Exec:
    """Starts commands beside those of runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def start(
        self,
        reference: int | str,
        command: Sequence[str] = (),
        *,
        terminal: bool = False,
        term: str = "",
        size: TerminalSize | None = None,
    ) -> ExecProcess:
        """Start a command beside that of a run: in its container, or its namespaces.

        Args:
            command: program and arguments; one word is a line for a shell, and no word starts a shell.
            terminal: whether the command gets a terminal; its stderr is then part of its stdout.
            term: the kind of that terminal, as in `$TERM`.
            size: of that terminal.

        Raises:
            NotFound: if the run does not exist.
            Conflict: if it is not running.
        """
        run = self._transport.call("GET", f"/runs/{quote(reference)}")  # starts the server if it does not run
        pair = [size.columns, size.rows] if size else None
        words = {"command": several("command", command), "terminal": terminal, "term": term, "size": pair}
        return ExecProcess(self._transport.home, run["number"], words)


class ExecProcess:
    """A command beside that of a run, and a context manager. One thread may read while another writes.

    Attributes:
        run_is_over: whether it ended because its run ended; known when `read` has ended.

    Args:
        home: of the server.
        number: of the run.
        words: the first frame.

    Raises:
        ServerUnavailable: if no server answers.
        InvalidConfig: if the command or `term` is not text in UTF-8.
    """

    def __init__(self, home: Home, number: int, words: Mapping[str, Any]) -> None:
        self._room = threading.Condition()
        self._untaken_bytes = 0
        self._over = False
        self._exit_code: int | None = None
        self.run_is_over = False
        first = _encoded(words)
        self._connection = _connect(home, number)
        with _mapped():
            self._connection.send(first)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> Iterator[Output]:
        """Yield the output of the command as it comes, until the command ends.

        Raises:
            SpellError: if the server refuses the command.
            ServerUnavailable: if the connection is lost.
        """
        try:
            while self._exit_code is None:
                with _mapped():
                    frame = self._connection.recv()
                if isinstance(frame, bytes):
                    yield Output(frame[0], frame[1:])
                else:
                    self._take(json.loads(frame))
        finally:
            with self._room:
                self._over = True
                self._room.notify_all()

    def _take(self, words: Mapping[str, Any]) -> None:
        if "error" in words:
            raise from_wire(words, 0)
        if "exit_code" in words:
            self._exit_code = int(words["exit_code"])
            self.run_is_over = bool(words.get("run_is_over"))
        elif "taken" in words:
            with self._room:
                self._untaken_bytes -= int(words["taken"])
                self._room.notify_all()

    def write(self, data: bytes) -> None:
        """Write to the command's stdin; b"" closes it. Waits while the command does not read earlier input."""
        if not data:
            self._send('{"eof": true}')
        for start in range(0, len(data), _CHUNK_BYTES):
            chunk = data[start : start + _CHUNK_BYTES]
            with self._room:
                self._room.wait_for(lambda: self._over or self._untaken_bytes < _WINDOW_BYTES)
                self._untaken_bytes += len(chunk)
            self._send(b"\0" + chunk)

    def resize(self, size: TerminalSize) -> None:
        """Set the size of its terminal."""
        self._send(json.dumps({"resize": [size.columns, size.rows]}))

    @property
    def exit_code(self) -> int:
        """The exit code of the command; known when `read` has ended."""
        assert self._exit_code is not None
        return self._exit_code

    def close(self) -> None:
        """Close the connection. The server ends the command if it still runs."""
        self._connection.close()

    def _send(self, frame: bytes | str) -> None:
        with contextlib.suppress(ConnectionClosed):  # `read` raises it
            self._connection.send(frame)


def _connect(home: Home, number: int) -> ClientConnection:
    home.check_socket()
    try:
        return unix_connect(
            str(home.socket),
            f"ws://spell/runs/{number}/exec",
            additional_headers={"Spell-Api": str(API_VERSION)},
            compression=None,
            ping_interval=None,  # a Unix socket shows at once that the other side is gone
            close_timeout=_CLOSE_LIMIT_S,
            max_size=None,
        )
    except (OSError, InvalidHandshake) as error:
        raise ServerUnavailable(
            f"The server of {home.root} did not start the command: {error}.", "See: spell server logs"
        ) from error


def _encoded(words: Mapping[str, Any]) -> str:
    text = json.dumps(words, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        raise InvalidConfig(f"{near!r} is not text in UTF-8.") from None
    return text


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except (ConnectionClosed, OSError) as error:
        raise ServerUnavailable("The connection to the server was lost.", "See: spell server logs") from error
