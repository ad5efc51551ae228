"""One request to the server of a home, over its socket; whatever goes wrong on the way becomes an error of ours.

httpx.ConnectError          a server is started when that is allowed, else ServerUnavailable
httpx.TimeoutException      ServerUnavailable: it hangs
httpx.TransportError        ServerUnavailable: the connection was lost
an answer of 4xx or 5xx     the error that it carries
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator import __version__
from orchestrator.errors import InvalidConfig, NotFound, ServerUnavailable, SpellError, from_wire
from orchestrator.home import Home
from orchestrator.launch import ensure_server
from orchestrator.records import API_VERSION

if TYPE_CHECKING:
    import httpx
else:  # without httpx's own command line, which loads rich and so would double the time of every `spell` command
    sys.modules.setdefault("httpx._main", None)
    httpx = importlib.import_module("httpx")
    if sys.modules["httpx._main"] is None:
        del sys.modules["httpx._main"]

TIMEOUT = httpx.Timeout(60.0, connect=5.0)
CHUNK_BYTES = 1 << 20


class Transport:
    """Requests to one server.

    Args:
        home: the home whose server is meant.
        start: whether a server may be started when none answers.
    """

    def __init__(self, home: Home, *, start: bool) -> None:
        self.home, self._start = home, start
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(home.socket), verify=False, trust_env=False),
            base_url="http://spell",
            timeout=TIMEOUT,
            trust_env=False,
            headers={"Spell-Api": str(API_VERSION), "User-Agent": f"spell/{__version__}"},
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON value that the server answers; None when it answers nothing.

        Raises:
            SpellError: whatever the server refuses, as the class that it raised; ServerUnavailable.
        """
        with contextlib.closing(self.stream(method, path, **options)) as response:
            body = b"".join(_drained(response))
        return json.loads(body) if body else None

    def stream(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer, its body not yet read. The caller closes it. Raises as `call`."""
        if "json" in options:
            options["content"] = _encoded(options.pop("json"))
            options["headers"] = {"Content-Type": "application/json"}
        with _mapped(self.home):
            try:
                response = self._send(method, path, options)
            except httpx.ConnectError:
                if not self._start:
                    raise
                ensure_server(self.home)
                response = self._send(method, path, options)
            if response.is_error:
                with contextlib.closing(response):
                    raise _refusal(response)
        return response

    def _send(self, method: str, path: str, options: Mapping[str, Any]) -> httpx.Response:
        self.home.check_socket()
        return self._http.send(self._http.build_request(method, path, **options), stream=True)


def chunks(response: httpx.Response) -> Iterator[bytes]:
    """The body of an answer, as it comes; closed at its end.

    Raises:
        ServerUnavailable: when the connection is lost before that.
    """
    with contextlib.closing(response):
        yield from _drained(response)


def lines(response: httpx.Response) -> Iterator[bytes]:
    """The body's lines, without their ends. Raises and closes as `chunks`."""
    unfinished: list[bytes] = []  # joined once: a line may be as long as many chunks
    for chunk in chunks(response):
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join([*unfinished, whole[0]])
            unfinished = []
            yield from whole
        unfinished.append(rest)


def quote(reference: str) -> str:
    """A run's reference as one part of a URL's path.

    Raises:
        NotFound: for what can be no reference.
    """
    if not reference or "/" in reference or reference in (".", ".."):
        raise NotFound(f"There is no run {reference!r}.", "See them with: spell ps")
    return quote_path(reference)


def quote_path(text: str) -> str:
    """A resource as a URL's path, which nobody on the way takes for another one: `..` stays `..`."""
    return "/".join("%2E" * len(part) if part in (".", "..") else _quoted(part) for part in text.split("/"))


def _quoted(part: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "-._~") else _percent(char) for char in part)


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def timeout(read_s: float) -> httpx.Timeout:
    """The usual limits, with this one for the next bytes of an answer."""
    return httpx.Timeout(60.0, connect=5.0, read=read_s)


def _encoded(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        raise InvalidConfig(f"{near!r} is not text in UTF-8.") from None


def _drained(response: httpx.Response) -> Iterator[bytes]:
    body = response.iter_raw()  # as it comes: a chunk size would hold back what is less
    while True:
        with _mapped(None):
            chunk = next(body, None)
        if chunk is None:
            return
        yield chunk


@contextlib.contextmanager
def _mapped(home: Home | None) -> Iterator[None]:
    """Errors of httpx, as ours."""
    try:
        yield
    except httpx.ConnectError:
        root = home.root if home else "this home"
        raise ServerUnavailable(f"No server serves {root}.", "Start it: spell server start") from None
    except httpx.TimeoutException as error:
        raise ServerUnavailable("The server does not answer.", "See: spell server logs") from error
    except httpx.TransportError as error:
        raise ServerUnavailable(
            f"The connection to the server was lost: {error or type(error).__name__}.", "See: spell server logs"
        ) from error


def _refusal(response: httpx.Response) -> SpellError:
    try:
        body: object = json.loads(response.read())
    except ValueError:
        body = None
    if isinstance(body, Mapping) and "detail" in body:  # FastAPI's own refusals
        detail = body["detail"]
        words = (
            "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in detail) if isinstance(detail, list) else detail
        )
        return SpellError(str(words))
    return from_wire(body, response.status_code)
