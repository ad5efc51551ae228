"""Long answers of the engine: followed line by line, ended by a failure, a wish to cancel, or silence."""

from __future__ import annotations

import contextlib
import importlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.engine import Engine, EngineError
from orchestrator.environments.request import redacted
from orchestrator.environments.uv import BuildCancelled, BuildLog
from orchestrator.errors import BuildFailed, DiskFull, PhaseFailed, says_disk_full

if TYPE_CHECKING:
    import docker

POLL_S = 0.05  # how late a wish to cancel may be seen
_PROGRESS_S = 5.0  # one line for thousands of messages
_END_LIMIT_S = 1.0  # how long the thread of a stream that was cut is waited for
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
    """Who follows something long, and when it is given up.

    Attributes:
        log: gets what is said.
        cancelled: asked many times a second.
        idle_limit_s: how long nothing may be said.
        what: the sentence that a failure begins with: "The image x could not be pulled".
    """

    log: BuildLog
    cancelled: Callable[[], bool] = field(repr=False)
    idle_limit_s: float
    what: str

    def check(self, heard_at: float) -> None:
        """See whether to go on.

        Args:
            heard_at: when something was said last, of the monotonic clock.

        Raises:
            BuildCancelled, BuildFailed: when not.
        """
        if self.cancelled():
            raise BuildCancelled("The build of the image was cancelled.")
        if time.monotonic() - heard_at > self.idle_limit_s:
            raise BuildFailed(
                f"{self.what}: nothing was heard of it for {self.idle_limit_s:g} s.",
                "If it may be silent for longer, set idle_limit_s in [docker] of config.toml.",
            )

    def failure(self, words: str, said: Iterable[str] = ()) -> PhaseFailed:
        """The error for a failure.

        Args:
            words: what an engine, registry or package manager said.
            said: lines before that, which may tell what was behind it.
        """
        whole = "\n".join((*said, words))
        if says_disk_full(whole):
            return DiskFull(
                f"{self.what}: the disk of the Docker engine is full.",
                "Make room there (`docker system df` shows what takes it), then cast the run again.",
            )
        cures = [cure for pattern, cure in _CURES.items() if re.search(pattern, words, re.IGNORECASE)]
        if _AWAY.search(whole):
            cures = [_AWAY_CURE]
        clean = redacted(words.strip())
        end = "" if clean.endswith((".", "!", "?")) else "."
        return BuildFailed(f"{self.what}: {clean}{end}", (cures or ["The build log has the whole output."])[0])


# Asks the engine for a stream; the second argument says something into it from our own side.
Call = Callable[["docker.APIClient", Callable[[Any], None]], Iterable[Any]]


def follow(engine: Engine, call: Call, watch: Watch, take: Callable[[Any], None]) -> None:
    """Give each message of a stream to `take`, until it ends.

    Raises:
        BuildCancelled, BuildFailed, DiskFull: and the engine was told that nobody listens any more.
        EngineError: when it does not answer.
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
    """A thread that reads, since reading cannot be given up from within, and a client of its own for it.

    A new client also reads the person's `docker login` of now.
    """

    def __init__(self, engine: Engine, call: Call, idle_limit_s: float) -> None:
        self.feed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._engine, self._call = engine, call
        self._limit_s = idle_limit_s + 30  # `Watch` is to be the one that sees silence
        self._is_cut = False
        self._responses: list[Any] = []
        self._thread = threading.Thread(target=self._read, name="docker-stream", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End it. The engine stops what it was doing for us when the connection is closed."""
        self._is_cut = True
        for response in self._responses:
            self._close(response)
        self._thread.join(_END_LIMIT_S)

    def _read(self) -> None:
        try:
            with self._engine.told():
                sdk: Any = importlib.import_module("docker")
                version = self._engine.api.api_version
                client = sdk.APIClient(base_url=self._engine.host, version=version, timeout=self._limit_s)
                client.hooks["response"].append(self._note)
                with contextlib.closing(client):
                    for message in self._call(client, self._put):
                        self._put(message)
        except BaseException as error:  # it is raised in the thread that follows
            self.feed.put(error)
        else:
            self.feed.put(_OVER)

    def _put(self, message: Any) -> None:
        if self._is_cut:
            raise BuildCancelled("Nobody listens any more.")
        self.feed.put(message)

    def _note(self, response: Any, *_args: Any, **_options: Any) -> None:
        self._responses.append(response)
        if self._is_cut:
            self._close(response)

    def _close(self, response: Any) -> None:
        types: Any = importlib.import_module("docker.types")
        with contextlib.suppress(Exception):  # it is closed already, in one of many ways
            types.CancellableStream(iter(()), response).close()


class Transfer:
    """Reads the messages of a pull or push: one line for each state of a layer, now and then one for the bytes."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._seen: set[tuple[str, str]] = set()
        self._bytes: dict[str, tuple[int, int]] = {}
        self._said_at = time.monotonic()

    def take(self, message: dict[str, Any]) -> None:
        """Read one message.

        Raises:
            BuildFailed, DiskFull: when it tells of a failure.
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
