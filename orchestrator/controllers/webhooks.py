"""Tells webhooks of the end of runs: signed, and tried again until somebody has answered.

The request is a POST of JSON in the form of https://www.standardwebhooks.com (webhook-id, webhook-timestamp,
webhook-signature: `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`). The key is made once for a home, in
`store/webhook.key` as `whsec_…`. `text` is what chat programs show of it.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import http.client
import json
import logging
import os
import secrets
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.home import Home
from orchestrator.records.run_summary import RunSummary
from orchestrator.spec.run import to_wire
from orchestrator.store import Store
from orchestrator.store.webhooks import Notification

_log = logging.getLogger(__name__)
_ANSWER_LIMIT_S = 10.0
_PAUSES_S = (2, 10, 60, 300, 1800, 7200, 28800)  # some ten hours in all
_AT_ONCE = 20
_ERROR_PAUSE_S = 5.0
_KEY_BYTES = 32
_LEAST_KEY_BYTES = 16
_PREFIX = "whsec_"


class Webhooks:
    """Tells of the ends that the store has written down.

    Args:
        store: where they are written down.
        home: has the key.
    """

    def __init__(self, store: Store, home: Home) -> None:
        self._store, self._home = store, home
        self._connection: http.client.HTTPConnection | None = None
        self._open = urllib.request.build_opener(_NoRedirects, _Http(self._connected), _Https(self._connected)).open
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin, with whom a dead server did not tell."""
        self._thread.start()

    def wake(self) -> None:
        """A run may have ended."""
        self._wake.set()

    def close(self) -> None:
        """Stop; who was not told is told by the next server."""
        self._closing.set()
        self._wake.set()

    def _loop(self) -> None:
        while not self._closing.is_set():
            wait_s: float | None = _ERROR_PAUSE_S
            try:
                for item in self._store.webhooks.due(time.time(), _AT_ONCE):
                    if self._closing.is_set():
                        return
                    self._tell(item)
                next_at = self._store.webhooks.next_at()
                wait_s = None if next_at is None else max(0.0, next_at - time.time())
            except Exception:  # a full disk, say: later is early enough
                _log.exception("webhooks could not be told")
            self._wake.wait(wait_s)
            self._wake.clear()

    def _tell(self, item: Notification) -> None:
        answer, done = self._answer(item)
        pause_s = None if done or item.tries >= len(_PAUSES_S) else _PAUSES_S[item.tries]
        self._store.webhooks.tried(item.id, answer, None if pause_s is None else time.time() + pause_s)
        if not done:
            again = "given up" if pause_s is None else f"again in {pause_s} s"
            _log.warning("run %d: a webhook was not told: %s; %s", item.run, answer, again)
            if pause_s is None or not item.tries:
                self._store.notice(item.run, f"A webhook was not told of the end: {answer}; {again}")

    def _answer(self, item: Notification) -> tuple[str, bool]:
        """What came of it, without the URL, and whether that was success."""
        try:
            body = json.dumps(message(self._store.summary(item.run))).encode()
            headers = signed(key(self._home), f"run-{item.run}-{item.id}", int(time.time()), body)
            request = urllib.request.Request(item.url, body, headers, method="POST")
            with self._limited(), self._open(request, timeout=_ANSWER_LIMIT_S) as response:
                return f"HTTP status {response.status}", True
        except urllib.error.HTTPError as error:
            error.close()
            return f"HTTP status {error.code}", False
        except urllib.error.URLError as error:
            return _words(error.reason), False
        except (OSError, http.client.HTTPException, ValueError) as error:
            return _words(error), False

    def _connected(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Hang up on who answers a byte now and then: the limit of a socket is that of each of its bytes."""

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                if self._connection and self._connection.sock:
                    self._connection.sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(_ANSWER_LIMIT_S, hang_up)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._connection = None


def _words(error: object) -> str:
    """What went wrong; no words that may name the host, which may be a secret."""
    is_named = isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError)
    return os.strerror(error.errno) if is_named else type(error).__name__  # type: ignore[attr-defined]


class _Watched:
    """A part of urllib's handlers: whoever opens a connection says so."""

    def __init__(self, connected: Callable[[http.client.HTTPConnection], None]) -> None:
        super().__init__()
        self._connected = connected

    def do_open(self, kind: Callable[..., http.client.HTTPConnection], *words: Any, **more: Any) -> Any:
        """Called by urllib."""

        def made(*words: Any, **more: Any) -> http.client.HTTPConnection:
            connection = kind(*words, **more)
            self._connected(connection)
            return connection

        return super().do_open(made, *words, **more)  # type: ignore[misc]


class _Http(_Watched, urllib.request.HTTPHandler):  # type: ignore[misc]
    """`http:`"""


class _Https(_Watched, urllib.request.HTTPSHandler):  # type: ignore[misc]
    """`https:`"""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A webhook that moved is told nothing: who asked for it named another place."""

    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


def message(run: RunSummary) -> dict[str, Any]:
    """What a webhook is told of a run that has ended."""
    moment = dt.datetime.fromtimestamp(run.ended_at or time.time(), dt.UTC)
    name = f" ({run.name})" if run.name else ""
    return {
        "type": "run.ended",
        "timestamp": moment.isoformat().replace("+00:00", "Z"),
        "text": f"Run {run.number}{name} {run.state.replace('_', ' ')}: {run.message}",
        "data": to_wire(run),
    }


def signed(secret: bytes, identity: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message, with its signature. https://www.standardwebhooks.com

    Args:
        secret: the key.
        identity: the same for every try of one message.
        timestamp: seconds since the epoch.
        body: the bytes that are sent.
    """
    words = f"{identity}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(secret, words, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "User-Agent": "spell",
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def key(home: Home) -> bytes:
    """The home's key for webhooks, made when it is first needed. Raises OSError, ValueError."""
    with contextlib.suppress(FileNotFoundError):
        found = base64.b64decode(home.webhook_key.read_text().strip().removeprefix(_PREFIX))
        if len(found) < _LEAST_KEY_BYTES:  # whoever receives the messages knows another one
            raise ValueError(f"{home.webhook_key} holds no key; remove it, and a new one is made")
        return found
    beside = home.webhook_key.with_name(f"{home.webhook_key.name}.{os.getpid()}")
    made = _PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(made + "\n")
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(beside, home.webhook_key)
    Path.unlink(beside)
    return key(home)
