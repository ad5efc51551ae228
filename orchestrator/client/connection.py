"""One connection to the socket of a home: a request is sent, its answer is read as it arrives.

It uses h11, because a whole HTTP client takes longer to load than most commands take to run (docs/adr/0008).
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterable, Mapping

import h11

from orchestrator.home import Home

_RECEIVED_BYTES = 256 << 10
_NO_CONTENT = 204
_CONNECT_LIMIT_S = 5

Content = bytes | Iterable[bytes] | None
"""The body of a request: as a whole, chunk by chunk, or none."""


class NoServer(Exception):
    """No server listens on the socket."""


class Lost(Exception):
    """The connection ended before the answer did, or the answer was not HTTP."""


class Connection:
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
            raise NoServer from error

    def close(self) -> None:
        self._socket.close()

    def is_usable(self, read_limit_s: float) -> bool:
        """Set the limit for the next answer, and return whether the server has kept the connection open."""
        self._socket.settimeout(read_limit_s)
        return not select.select([self._socket], [], [], 0)[0]

    def request(self, method: str, target: str, content: Content, headers: Mapping[str, str]) -> None:
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
            OSError, Lost: if no answer comes.
        """
        while not isinstance(event := self._next(), h11.Response):
            pass  # an informational answer (1xx)
        is_framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in event.headers)
        if not is_framed and event.status_code != _NO_CONTENT:  # spelld always sends one of them
            raise Lost("its answer was cut off")
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
                    raise Lost("it was closed before an answer came")
                self._http.receive_data(data)  # type: ignore[arg-type] # which takes any bytes-like
        except h11.RemoteProtocolError as error:
            raise Lost(str(error)) from error
        if isinstance(event, h11.ConnectionClosed) or not isinstance(event, h11.Event):
            raise Lost("it was closed")
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

    def __init__(self, connection: Connection, idle: list[Connection]) -> None:
        response = connection.response()
        self.status_code = response.status_code
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
        self._connection, self._idle = connection, idle
        self._over = False

    def read(self) -> bytes:
        """Read the next bytes of the body as soon as some arrive; b"" at its end.

        Raises:
            OSError, Lost: if the connection is lost before the end.
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
