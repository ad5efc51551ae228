"""Sends a signed message to the webhooks of a run when it has ended, and tries again until one try succeeds.

The request is a POST of JSON in the form of https://www.standardwebhooks.com (webhook-id, webhook-timestamp,
webhook-signature: `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`). The key is made once for a home, in
`store/webhook.key` as `whsec_…`. Chat programs show the field `text`.
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
logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs URLs, which may be secrets
_ANSWER_LIMIT_S = 10.0
_PAUSES_S = (2, 10, 60, 300, 1800, 7200, 28800)  # about ten hours in all
_AT_ONCE = 20
_ERROR_PAUSE_S = 5.0
_KEY_BYTES = 32
_LEAST_KEY_BYTES = 16
_PREFIX = "whsec_"


class Webhooks:
    """Sends the messages that the store has recorded as due.

    Args:
        store: has the messages.
        home: has the key.
    """

    def __init__(self, store: Store, home: Home) -> None:
        self._store, self._home = store, home
        self._loop = Loop("webhooks", self._tell_all, wait_s=self._until_next_s, error_pause_s=_ERROR_PAUSE_S)

    def start(self) -> None:
        """Start; first, messages that the last server did not send are sent."""
        self._loop.start()

    def wake(self) -> None:
        """A run may have ended: look for messages that are due."""
        self._loop.wake()

    def close(self) -> None:
        """Stop; the next server sends the messages that are left."""
        self._loop.close(limit_s=0)  # a webhook that does not answer would delay the end

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
            _log.warning("run %d: a webhook was not called: %s; %s", item.run, answer, again)
            if pause_s is None or not item.tries:
                self._store.notice(item.run, f"A webhook was not called: {answer}; {again}")

    def _answer(self, item: Notification) -> tuple[str, bool]:
        """The result of one try, in words without the URL, and whether it succeeded."""
        try:
            body = json.dumps(message(self._store.summary(item.run))).encode()
            headers = signed(key(self._home), f"run-{item.run}-{item.id}", int(time.time()), body)
        except (OSError, ValueError) as error:  # from reading the key
            return _words(error), False
        return post(item.url, headers, body)


def post(url: str, headers: Mapping[str, str], body: bytes) -> tuple[str, bool]:
    """Send a message. No redirect is followed: the person named this URL, and no other.

    Returns:
        The result in words without the name of the host, which may be a secret; and whether it succeeded.
    """
    try:
        return asyncio.run(_send(url, headers, body))
    except TimeoutError:
        return f"no answer within {_ANSWER_LIMIT_S:g} s", False
    except Exception as error:  # an error of one URL must not stop the others
        return _words(error), False


async def _send(url: str, headers: Mapping[str, str], body: bytes) -> tuple[str, bool]:
    import httpx  # 94 ms, and most servers never send a webhook

    # Certificates and proxies are those of this machine: httpx would use certificates that it brings.
    trusted = ssl.create_default_context()
    # The timeout of httpx is for each read, even of one byte; so one for all reads is around it. Neither ends the thread
    # that resolves the name of the host: with a name server that does not answer, a try takes as long as the resolver.
    async with (
        asyncio.timeout(_ANSWER_LIMIT_S),
        httpx.AsyncClient(verify=trusted, proxy=_proxy(url), trust_env=False, timeout=_ANSWER_LIMIT_S) as client,
        client.stream("POST", url, content=body, headers=dict(headers)) as response,
    ):
        return f"HTTP status {response.status_code}", response.is_success  # the body is not read


def _proxy(url: str) -> str | None:
    place = urllib.parse.urlsplit(url)
    found = urllib.request.getproxies().get(place.scheme)
    if not found or urllib.request.proxy_bypass(place.netloc):
        return None
    return found if "://" in found else f"http://{found}"


def _words(error: BaseException) -> str:
    """The cause of an error, in words without the name of the host."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):  # one error for each address of the host
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
    """The body of the message about a run that has ended."""
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
    """The home's key for webhooks, made when it is needed first. Raises OSError, ValueError."""
    with contextlib.suppress(FileNotFoundError):
        found = base64.b64decode(home.webhook_key.read_text().strip().removeprefix(_PREFIX))
        if len(found) < _LEAST_KEY_BYTES:  # a new key would not be the one that receivers know
            raise ValueError(f"{home.webhook_key} contains no key; remove it, and spell makes a new one")
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
