"""Tells webhooks of the end of runs: signed, and tried again until somebody has answered.

The request is a POST of JSON in the form of https://www.standardwebhooks.com (webhook-id, webhook-timestamp,
webhook-signature: `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`). The key is made once for a home, in
`store/webhook.key` as `whsec_…`. `text` is what chat programs show of it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import json
import logging
import os
import secrets
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.home import Home
from orchestrator.loops import Loop
from orchestrator.records.run_summary import RunSummary
from orchestrator.spec.run import to_wire
from orchestrator.store import Store
from orchestrator.store.webhooks import Notification

_log = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # below it logs URLs, which may be secrets
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
        self._loop = Loop("webhooks", self._tell_all, wait_s=self._until_next_s, error_pause_s=_ERROR_PAUSE_S)

    def start(self) -> None:
        """Begin, with whom a dead server did not tell."""
        self._loop.start()

    def wake(self) -> None:
        """A run may have ended."""
        self._loop.wake()

    def close(self) -> None:
        """Stop; who was not told is told by the next server."""
        self._loop.close(limit_s=0)  # who does not answer would be waited for

    def _tell_all(self) -> None:
        for item in self._store.webhooks.due(time.time(), _AT_ONCE):
            if self._loop.is_closing():
                return
            self._tell(item)

    def _until_next_s(self) -> float | None:
        next_at = self._store.webhooks.next_at()
        return None if next_at is None else max(0.0, next_at - time.time())

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
        except (OSError, ValueError) as error:  # of the key
            return _words(error), False
        return post(item.url, headers, body)


def post(url: str, headers: Mapping[str, str], body: bytes) -> tuple[str, bool]:
    """Send a message; no redirect is followed: whoever asked for it named this place.

    Returns:
        What came of it, in words that do not name the host, which may be a secret; and whether that was success.
    """
    import httpx  # 94 ms, and most servers never tell anybody

    async def send() -> httpx.Response:
        # Certificates and proxies are those of this machine, as for every other program: httpx would bring its own.
        trusted = ssl.create_default_context()
        async with (
            asyncio.timeout(_ANSWER_LIMIT_S),  # for all of it: that of httpx is for each read, be it of one byte
            httpx.AsyncClient(verify=trusted, proxy=_proxy(url), trust_env=False, timeout=_ANSWER_LIMIT_S) as client,
            client.stream("POST", url, content=body, headers=dict(headers)) as response,
        ):
            return response  # its body is not read

    try:
        response = asyncio.run(send())
    except TimeoutError:
        return f"no answer within {_ANSWER_LIMIT_S:g} s", False
    except Exception as error:  # whatever a URL brings about must not hold up the others
        return _words(error), False
    return f"HTTP status {response.status_code}", response.is_success


def _proxy(url: str) -> str | None:
    place = urllib.parse.urlsplit(url)
    found = urllib.request.getproxies().get(place.scheme)
    if not found or urllib.request.proxy_bypass(place.netloc):
        return None
    return found if "://" in found else f"http://{found}"


def _words(error: BaseException) -> str:
    """What went wrong, in words that do not name the host."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):  # one for each address of the host
            cause = cause.exceptions[0]
        if isinstance(cause, ssl.SSLError):
            return type(cause).__name__
        if isinstance(cause, socket.gaierror):
            return "the name of its host is not known"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


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
