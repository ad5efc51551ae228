"""Requests to the server of a home, over its socket. Each failure becomes a SpellError:

no server listens               a server is started if that is allowed, else ServerUnavailable
no answer within the limit      ConnectionLost: the server hangs
the connection is lost          the request is sent again if it does no harm twice, else ConnectionLost
an answer of 4xx or 5xx         the error in the answer

So who meets a server that is starting or dying sees none of it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

from orchestrator import __version__
from orchestrator.client.connection import Answer, Connection, Content, Lost, NoServer
from orchestrator.client.launch import ensure_server
from orchestrator.errors import ConnectionLost, InvalidConfig, NotFound, ServerUnavailable, SpellError, from_wire
from orchestrator.home import Home
from orchestrator.records import API_VERSION

CHUNK_BYTES = 1 << 20
_BAD_REQUEST, _NOT_FOUND, _CONFLICT = 400, 404, 409
_READ_LIMIT_S = 60.0
_HEADERS = {"User-Agent": f"spell/{__version__}"}
_VERSION = {"Spell-Api": str(API_VERSION)}
_TRIES = 6
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})

T = TypeVar("T")


class _Request(NamedTuple):
    method: str
    target: str
    content: Content
    headers: Mapping[str, str]
    read_limit_s: float
    may_repeat: bool


class Transport:
    """Sends requests to one server. Several threads may use it at once.

    Args:
        home: of the server.
        start: whether to start a server if none answers.
    """

    def __init__(self, home: Home, *, start: bool) -> None:
        self.home, self._start = home, start
        self._has_answered = False
        self._idle: list[Connection] = []

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Send a request and return the JSON value of the answer; None if its body is empty. Options as of `_request`.

        Raises:
            SpellError: of the class that the server raised.
            ServerUnavailable: if no server answers.
        """
        status, body, lost_one = self._answer(_request(method, path, **options))
        if status == _NOT_FOUND and method == "DELETE" and lost_one:
            return None  # the request whose answer was lost had removed it
        return _value(status, body)

    def change(self, path: str, verb: str, **changed: Any) -> Any:
        """Change something by a verb that does no harm twice. Returns the JSON value of the answer.

        Args:
            path: of its record.
            verb: the last part of the path of the request.
            changed: fields that the record has when it was done. If an answer was lost, and the request that was sent
                again is refused, they tell whether the first one had done it: then the record is returned.

        Raises:
            SpellError: as `call`.
        """
        status, body, lost_one = self._answer(_request("POST", f"{path}/{verb}", may_repeat=True))
        if status == _CONFLICT and lost_one:
            record = self.call("GET", path)
            if all(record[name] == value for name, value in changed.items()):
                return record
        return _value(status, body)

    def cast(self, path: str, body: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Send a request to cast something. Its key, made here, lets the server see that a request was sent before."""
        key = {"key": os.urandom(16).hex()}
        return self.call("POST", path, json=body, params={**(params or {}), **key}, may_repeat=True)

    def stream(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request and return the answer with its body unread. The caller closes it. Raises as `call`."""
        request = _request(method, path, **options)
        with _mapped(self.home):
            answer = self._persistently(lambda: self._send(request), request)
        if answer.status_code >= _BAD_REQUEST:
            with contextlib.closing(answer):
                raise _refusal(answer.status_code, b"".join(_drained(answer)))
        return answer

    def _answer(self, request: _Request) -> tuple[int, bytes, bool]:
        """Return status and body of the answer, and whether the answer to an earlier try was lost."""
        lost_one = False

        def once() -> tuple[int, bytes]:
            nonlocal lost_one
            try:
                with contextlib.closing(self._send(request)) as answer:
                    return answer.status_code, b"".join(iter(answer.read, b""))
            except (ConnectionError, Lost):
                lost_one = True
                raise

        with _mapped(self.home):
            return *self._persistently(once, request), lost_one

    def _persistently(self, once: Callable[[], T], request: _Request) -> T:
        """Return what `once` returns. Where the server ends before it has answered, the next one is asked."""
        for left in reversed(range(_TRIES)):
            try:
                result = once()
            except NoServer:
                if not (self._start and left):
                    raise
                ensure_server(self.home, must_exist=self._has_answered)
            except (ConnectionError, Lost):
                if not (request.may_repeat and left):
                    raise
            else:
                self._has_answered = True
                return result
        raise AssertionError("the last try returns or raises")

    def _send(self, request: _Request) -> Answer:
        connection = self._connection(request.read_limit_s)
        try:
            # A server that refuses a request answers why, and closes the connection before it has read the whole body.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(request.method, request.target, request.content, request.headers)
            return Answer(connection, self._idle)
        except BaseException:
            connection.close()
            raise

    def _connection(self, read_limit_s: float) -> Connection:
        with contextlib.suppress(IndexError):
            while not (idle := self._idle.pop()).is_usable(read_limit_s):
                idle.close()
            return idle
        return Connection(self.home, read_limit_s)


def _request(
    method: str,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    content: str | bytes | Iterable[bytes] | None = None,
    read_limit_s: float = _READ_LIMIT_S,
    any_version: bool = False,
    may_repeat: bool | None = None,
) -> _Request:
    """Return a request as it is sent.

    Args:
        params: the query; a list becomes one parameter for each item.
        json: a body to send as JSON.
        content: a body to send as it is; an iterable is sent chunk by chunk.
        read_limit_s: longest silence of the server, in seconds.
        any_version: whether a server of another version of the API may answer.
        may_repeat: whether it does no harm if the server does it twice; None if the method says so.
    """
    headers = dict(_HEADERS) if any_version else _HEADERS | _VERSION
    if json is not None:
        content, headers["Content-Type"] = _encoded(json), "application/json"
    elif isinstance(content, str):
        content = content.encode()
    target = f"{path}?{_query(params)}" if params else path
    is_whole = content is None or isinstance(content, bytes)  # an iterable can be sent only once
    again = is_whole and (method in _REPEATABLE if may_repeat is None else may_repeat)
    return _Request(method, target, content, headers, read_limit_s, again)


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
    except NoServer:
        if home:
            home.check_has_no_old_server()
        root = home.root if home else "this home"
        raise ServerUnavailable(f"No server serves {root}.", "Start it: spell server start") from None
    except TimeoutError as error:
        raise ConnectionLost("The server does not answer.", "See: spell server logs") from error
    except (ConnectionError, Lost) as error:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ConnectionLost(f"The connection to the server was lost: {words}.", "See: spell server logs") from error


def _value(status: int, body: bytes) -> Any:
    if status >= _BAD_REQUEST:
        raise _refusal(status, body)
    return json.loads(body) if body else None


def _refusal(status: int, body: bytes) -> SpellError:
    try:
        words: object = json.loads(body)
    except ValueError:
        words = None
    return from_wire(words, status)
