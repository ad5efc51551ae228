"""Follows a long answer of the engine, message by message, until it ends, fails, is cancelled, or falls silent."""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.engine import Engine, EngineError
from orchestrator.environments.uv import BuildCancelled, BuildLog
from orchestrator.errors import BuildFailed, DiskFull, PhaseFailed, says_disk_full
from orchestrator.spec.redaction import redacted

if TYPE_CHECKING:
    import docker

POLL_S = 0.05  # delay until a request to cancel is noticed
_PROGRESS_S = 5.0  # one line for thousands of messages
_END_LIMIT_S = 1.0  # how long to wait for the thread of a stream that was cut
_MEGABYTE = 1e6
_OVER = object()
_AWAY = re.compile(
    r"timeout|timed out|refused|no such host|failure resolving|unreachable|failed to fetch|could not resolve",
    re.IGNORECASE,
)
_AWAY_CURE = "Check the network and the proxies of this machine."
_CURES = {
    r"no basic auth|denied|unauthorized|authentication required": (
        "Check its name; for a registry that is not public, log in where the server runs: docker login REGISTRY."
    ),
    r"not found|manifest unknown|invalid reference|does not exist": "Check its name.",
    r"unable to locate package|no installation candidate|version .* was not found": (
        "Check its name; it must be a package of the image's distribution."
    ),
}


@dataclass(frozen=True, slots=True)
class Watch:
    """Decides when a long operation is given up, and words its failure.

    Attributes:
        log: gets the output.
        cancelled: called many times a second.
        idle_limit_s: the longest allowed time without output.
        what: the beginning of the message of a failure: "The image x could not be pulled".
    """

    log: BuildLog
    cancelled: Callable[[], bool] = field(repr=False)
    idle_limit_s: float
    what: str

    def check(self, heard_at: float) -> None:
        """Check whether to go on.

        Args:
            heard_at: the time of the last output, by the monotonic clock.

        Raises:
            BuildCancelled, BuildFailed: when it is cancelled, or silent for too long.
        """
        if self.cancelled():
            raise BuildCancelled("The build of the image was cancelled.")
        if time.monotonic() - heard_at > self.idle_limit_s:
            raise BuildFailed(
                f"{self.what}: the engine sent nothing for {self.idle_limit_s:g} s.",
                "To allow longer silence, set idle_limit_s in [docker] of config.toml.",
            )

    def failure(self, words: str, said: Iterable[str] = ()) -> PhaseFailed:
        """Return the error for a failure.

        Args:
            words: the message of an engine, registry or package manager.
            said: the lines before it, which may name the cause.
        """
        whole = "\n".join((*said, words))
        if says_disk_full(whole):
            return DiskFull(
                f"{self.what}: the disk of the Docker engine is full.",
                "Free space there (`docker system df` shows the usage), then cast the run again.",
            )
        cures = [cure for pattern, cure in _CURES.items() if re.search(pattern, words, re.IGNORECASE)]
        if _AWAY.search(whole):
            cures = [_AWAY_CURE]
        clean = redacted(words.strip())
        end = "" if clean.endswith((".", "!", "?")) else "."
        return BuildFailed(f"{self.what}: {clean}{end}", (cures or ["The build log holds the full output."])[0])


# Asks the engine for a stream; the second argument puts a message of ours into it.
Call = Callable[["docker.APIClient", Callable[[Any], None]], Iterable[Any]]


def follow(engine: Engine, call: Call, watch: Watch, take: Callable[[Any], None]) -> None:
    """Pass each message of a stream to `take`, until the stream ends.

    Raises:
        BuildCancelled, BuildFailed, DiskFull: the connection is closed then, so the engine stops.
        EngineError: when the engine does not answer.
    """
    stream = _Stream(engine, call, watch.idle_limit_s)
    heard_at = time.monotonic()
    try:
        while True:
            watch.check(heard_at)
            try:
                message = stream.feed.get(timeout=POLL_S)
            except queue.Empty:
                continue
            heard_at = time.monotonic()
            if message is _OVER:
                return
            if isinstance(message, EngineError) and message.status:
                watch.log.say(message.message)
                raise watch.failure(message.message) from message
            if isinstance(message, BaseException):
                raise message
            take(message)
    finally:
        stream.cut()


class _Stream:
    """Reads a stream in a thread with a separate client, because a blocked read cannot be given up.

    A new client also reads the user's current `docker login`.
    """

    def __init__(self, engine: Engine, call: Call, idle_limit_s: float) -> None:
        self.feed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._engine, self._call = engine, call
        self._limit_s = idle_limit_s + 30  # `Watch` must notice silence first
        self._is_cut = False
        self._responses: list[Any] = []
        self._thread = threading.Thread(target=self._read, name="docker-stream", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End the stream. The engine stops its work for us when the connection is closed."""
        self._is_cut = True
        for response in self._responses:
            self._close(response)
        self._thread.join(_END_LIMIT_S)

    def _read(self) -> None:
        try:
            with self._engine.translated_errors():
                from docker import APIClient  # 117 ms: requests; a server without an engine never needs it

                version = self._engine.api.api_version
                client = APIClient(base_url=self._engine.host, version=version, timeout=self._limit_s)
                client.hooks["response"].append(self._note)
                with contextlib.closing(client):
                    for message in self._call(client, self._put):
                        self._put(message)
        except BaseException as error:  # `follow` raises it in its thread
            self.feed.put(error)
        else:
            self.feed.put(_OVER)

    def _put(self, message: Any) -> None:
        if self._is_cut:
            raise BuildCancelled("The stream was cut.")
        self.feed.put(message)

    def _note(self, response: Any, *_args: Any, **_options: Any) -> None:
        self._responses.append(response)
        if self._is_cut:
            self._close(response)

    def _close(self, response: Any) -> None:
        from docker.types import CancellableStream  # 117 ms, as in `_read`

        with contextlib.suppress(Exception):  # it may be closed already
            CancellableStream(iter(()), response).close()


class Transfer:
    """Logs the messages of a pull or push: one line for each state of a layer, and sometimes one for the bytes."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._seen: set[tuple[str, str]] = set()
        self._bytes: dict[str, tuple[int, int]] = {}
        self._said_at = time.monotonic()

    def take(self, message: dict[str, Any]) -> None:
        """Read one message.

        Raises:
            BuildFailed, DiskFull: when the message reports a failure.
        """
        if "error" in message:
            self._watch.log.say(str(message["error"]))
            raise self._watch.failure(str(message["error"]))
        status, layer = str(message.get("status", "")).strip(), str(message.get("id", ""))
        detail = message.get("progressDetail") or {}
        if detail.get("current"):
            self._count(status, layer, int(detail["current"]), int(detail.get("total") or 0))
        elif status and (layer, status) not in self._seen:
            self._seen.add((layer, status))
            self._watch.log.say(f"{layer}: {status}" if layer else status)

    def _count(self, status: str, layer: str, current: int, total: int) -> None:
        self._bytes[f"{status} {layer}"] = (current, total)
        if time.monotonic() - self._said_at < _PROGRESS_S:
            return
        self._said_at = time.monotonic()
        these = [pair for name, pair in self._bytes.items() if name.startswith(f"{status} ")]
        done, whole = (sum(numbers) / _MEGABYTE for numbers in zip(*these, strict=True))
        self._watch.log.say(f"{status}: {done:.0f} of {whole:.0f} MB")
