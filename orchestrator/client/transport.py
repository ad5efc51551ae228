"""Requests to the server of a home, over its socket. Each failure becomes a SpellError:

no server listens               a server is started if that is allowed, else ServerUnavailable
no answer within the limit      ConnectionLost: the server hangs
the connection is lost          ConnectionLost
an answer of 4xx or 5xx         the error in the answer

It uses h11, because a whole HTTP client takes longer to load than most commands take to run (docs/adr/0008).
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import h11

from orchestrator import __version__
from orchestrator.client.launch import ensure_server
from orchestrator.errors import ConnectionLost, InvalidConfig, NotFound, ServerUnavailable, SpellError, from_wire
from orchestrator.home import Home
from orchestrator.records import API_VERSION

CHUNK_BYTES = 1 << 20
_RECEIVED_BYTES = 256 << 10
_BAD_REQUEST, _NO_CONTENT = 400, 204
_READ_LIMIT_S = 60.0
_CONNECT_LIMIT_S = 5
_HEADERS = {"User-Agent": f"spell/{__version__}"}
_VERSION = {"Spell-Api": str(API_VERSION)}

_Content = bytes | Iterable[bytes] | None


class _NoServer(Exception):
    """No server listens on the socket."""


class _Lost(Exception):
    """The connection ended before the answer did, or the answer was not HTTP."""


class _Connection:
    """A connection to a Unix socket, for one request at a time."""

    def __init__(self, home: Home, read_limit_s: float) -> None:
        home.check_socket()
        self._http = h11.Connection(h11.CLIENT)
        # Made once: a ^C during an allocation would be handled only after the answer has come.
        self._received = memoryview(bytearray(_RECEIVED_BYTES))
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            # When many connect at once, this call waits for its turn. Without SO_SNDTIMEO it would fail at once.
            limit = struct.pack("ll", _CONNECT_LIMIT_S, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self._socket.connect(str(home.socket))
            self._socket.settimeout(read_limit_s)
        except BlockingIOError as error:
            self._socket.close()
            raise TimeoutError from error
        except PermissionError as error:  # somebody else's home
            self._socket.close()
            raise home.unusable(error) from error
        except OSError as error:
            self._socket.close()
            raise _NoServer from error

    def close(self) -> None:
        self._socket.close()

    def is_usable(self, read_limit_s: float) -> bool:
        """Set the limit for the next answer, and return whether the server has kept the connection open."""
        self._socket.settimeout(read_limit_s)
        return not select.select([self._socket], [], [], 0)[0]

    def request(self, method: str, target: str, content: _Content, headers: Mapping[str, str]) -> None:
        """Send a whole request.

        Raises:
            OSError: if the server does not read all of it; its answer may say why.
        """
        if isinstance(content, bytes):
            length = {"Content-Length": str(len(content))}
        elif content is None:
            length = {}
        else:
            length = {"Transfer-Encoding": "chunked"}
        head = {"Host": "spell", **headers, **length}
        self._send(h11.Request(method=method, target=target, headers=list(head.items())))
        for chunk in [content] if isinstance(content, bytes) else content or ():
            self._send(h11.Data(data=chunk))
        self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> None:
        for data in self._http.send_with_data_passthrough(event) or ():
            self._socket.sendall(data)

    def response(self) -> h11.Response:
        """Read the head of the answer.

        Raises:
            OSError, _Lost: if no answer comes.
        """
        while not isinstance(event := self._next(), h11.Response):
            pass  # an informational answer (1xx)
        is_framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in event.headers)
        if not is_framed and event.status_code != _NO_CONTENT:  # spelld always sends one of them
            raise _Lost("its answer was cut off")
        return event

    def body(self) -> bytes:
        """Read the next bytes of the answer's body as soon as some arrive; b"" at its end. Raises as `response`."""
        event = self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    def _next(self) -> h11.Event:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = self._received[: self._socket.recv_into(self._received)]
                if not data and self._http.their_state is h11.SEND_RESPONSE:
                    raise _Lost("it was closed before an answer came")
                self._http.receive_data(data)  # type: ignore[arg-type] # which takes any bytes-like
        except h11.RemoteProtocolError as error:
            raise _Lost(str(error)) from error
        if isinstance(event, h11.ConnectionClosed) or not isinstance(event, h11.Event):
            raise _Lost("it was closed")
        return event

    def is_kept(self) -> bool:
        """Return whether the connection can serve another request, after an answer was read to its end."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if self._http.trailing_data[0]:  # would be read as the next answer
            return False
        self._http.start_next_cycle()
        return True


class Answer:
    """An answer of the server. Its body is read as it arrives.

    Attributes:
        status_code: of HTTP.
        headers: values by name, in lower case.
    """

    def __init__(self, connection: _Connection, idle: list[_Connection]) -> None:
        response = connection.response()
        self.status_code = response.status_code
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
        self._connection, self._idle = connection, idle
        self._over = False

    def read(self) -> bytes:
        """Read the next bytes of the body as soon as some arrive; b"" at its end.

        Raises:
            OSError, _Lost: if the connection is lost before the end.
        """
        if self._over:
            return b""
        chunk = self._connection.body()
        self._over = not chunk
        return chunk

    def close(self) -> None:
        """Release the connection. It is used again if the answer was read to its end."""
        if self._over and self._connection.is_kept():
            self._idle.append(self._connection)
        else:
            self._connection.close()
        self._over = True


class Transport:
    """Sends requests to one server. Several threads may use it at once.

    Args:
        home: of the server.
        start: whether to start a server if none answers.
    """

    def __init__(self, home: Home, *, start: bool) -> None:
        self.home, self._start = home, start
        self._has_answered = False
        self._idle: list[_Connection] = []

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Send a request and return the JSON value of the answer; None if its body is empty. Arguments as of `stream`.

        Raises:
            SpellError: of the class that the server raised.
            ServerUnavailable: if no server answers.
        """
        with contextlib.closing(self.stream(method, path, **options)) as answer:
            body = b"".join(_drained(answer))
        return json.loads(body) if body else None

    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: str | bytes | Iterable[bytes] | None = None,
        read_limit_s: float = _READ_LIMIT_S,
        any_version: bool = False,
    ) -> Answer:
        """Send a request and return the answer with its body unread. The caller closes it. Raises as `call`.

        Args:
            params: the query; a list becomes one parameter for each item.
            json: a body to send as JSON.
            content: a body to send as it is; an iterable is sent chunk by chunk.
            read_limit_s: longest silence of the server, in seconds.
            any_version: whether a server of another version of the API may answer.
        """
        headers = dict(_HEADERS) if any_version else _HEADERS | _VERSION
        if json is not None:
            content, headers["Content-Type"] = _encoded(json), "application/json"
        elif isinstance(content, str):
            content = content.encode()
        target = f"{path}?{_query(params)}" if params else path
        with _mapped(self.home):
            try:
                answer = self._send(method, target, content, headers, read_limit_s)
            except _NoServer:
                if not self._start:
                    raise
                ensure_server(self.home, must_exist=self._has_answered)
                answer = self._send(method, target, content, headers, read_limit_s)
            self._has_answered = True
            if answer.status_code >= _BAD_REQUEST:
                with contextlib.closing(answer):
                    raise _refusal(answer)
        return answer

    def _send(
        self, method: str, target: str, content: _Content, headers: Mapping[str, str], read_limit_s: float
    ) -> Answer:
        connection = self._connection(read_limit_s)
        try:
            # A server that refuses a request answers why, and closes the connection before it has read the whole body.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, content, headers)
            return Answer(connection, self._idle)
        except BaseException:
            connection.close()
            raise

    def _connection(self, read_limit_s: float) -> _Connection:
        with contextlib.suppress(IndexError):
            while not (idle := self._idle.pop()).is_usable(read_limit_s):
                idle.close()
            return idle
        return _Connection(self.home, read_limit_s)


def chunks(answer: Answer) -> Iterator[bytes]:
    """Yield the body of an answer as it arrives, then close the answer.

    Raises:
        ServerUnavailable: if the connection is lost before the end.
    """
    with contextlib.closing(answer):
        yield from _drained(answer)


def lines(answer: Answer) -> Iterator[bytes]:
    """Yield the lines of the body without their line feeds. Raises and closes as `chunks`."""
    unfinished: list[bytes] = []  # joined only once, as a line may fill many chunks
    for chunk in chunks(answer):
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join([*unfinished, whole[0]])
            unfinished = []
            yield from whole
        unfinished.append(rest)


def quote(reference: int | str) -> str:
    """Return a run's reference as one part of a URL's path.

    Raises:
        NotFound: if no run can have this reference.
    """
    text = str(reference)
    if not text or "/" in text or text in (".", ".."):
        raise NotFound(f"There is no run {text!r}.", "See them with: spell ps")
    return quote_path(text)


def quote_path(text: str) -> str:
    """Return a resource as a URL's path. Dots are escaped, so that no library resolves `..` on the way."""
    return "/".join("%2E" * len(part) if part in (".", "..") else _quoted(part) for part in text.split("/"))


def _quoted(part: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "-._~") else _percent(char) for char in part)


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def _query(params: Mapping[str, Any]) -> str:
    words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in params.items()}
    return urlencode(words, doseq=True, errors="surrogateescape")


def _encoded(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        raise InvalidConfig(f"{near!r} is not text in UTF-8.") from None


def _drained(answer: Answer) -> Iterator[bytes]:
    while True:
        with _mapped(None):
            chunk = answer.read()
        if not chunk:
            return
        yield chunk


@contextlib.contextmanager
def _mapped(home: Home | None) -> Iterator[None]:
    """Raise the failures of a connection as SpellErrors."""
    try:
        yield
    except _NoServer:
        if home:
            home.check_has_no_old_server()
        root = home.root if home else "this home"
        raise ServerUnavailable(f"No server serves {root}.", "Start it: spell server start") from None
    except TimeoutError as error:
        raise ConnectionLost("The server does not answer.", "See: spell server logs") from error
    except (ConnectionError, _Lost) as error:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ConnectionLost(f"The connection to the server was lost: {words}.", "See: spell server logs") from error


def _refusal(answer: Answer) -> SpellError:
    try:
        body: object = json.loads(b"".join(_drained(answer)))
    except ValueError:
        body = None
    return from_wire(body, answer.status_code)
