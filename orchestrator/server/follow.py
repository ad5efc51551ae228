"""Follows a run: sends its events and its log, in their order, as server-sent events.

    event: state   data: an EventRecord (states, stop requests, notices)      id: a position, see `records/position.py`
    event: waits   data: base64 of what it waits for in the queue, in words; sent again when that changes
    event: build   data: base64 of the next bytes of the build log      id: likewise
    event: log     data: base64 of the next bytes of the run's output   id: likewise
    event: end     data: the RunSummary; after it the stream ends. If a stream ends without it, connect again.

A client that lost its connection sends the last id that it saw as `Last-Event-ID` (or `?after=`) and misses nothing. All bytes
of the log come before the event of the next state. Format of the stream: HTML standard, section 9.2.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from orchestrator.records.position import Position
from orchestrator.service.logs import Feed
from orchestrator.spec.run import to_wire
from orchestrator.states import FINAL, State

_POLL_S = 0.02
_KEEP_ALIVE_S = 15.0
_QUEUE_LOOK_S = 1.0
_BUILDING = frozenset({State.MACHINE_REQUESTED, State.BUILDING, State.MOUNTING})


class Hub:
    """Wakes the followers of a run when a change of it was committed. Threads call `changed`; one event loop waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[int, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}
        self.is_closed = False

    def close(self) -> None:
        """End all streams without an `end`, as the server ends: followers connect again to the next server."""
        self.is_closed = True

    def changed(self, number: int) -> None:
        """Wake the followers of this run: a change of it was committed."""
        with self._lock:
            listeners = list(self._listeners.get(number, ()))
        for loop, event in listeners:
            with contextlib.suppress(RuntimeError):  # the event loop has ended: nobody follows any more
                loop.call_soon_threadsafe(event.set)

    def listen(self, number: int) -> asyncio.Event:
        """An event that is set at every change of this run, until `forget`."""
        event = asyncio.Event()
        with self._lock:
            self._listeners.setdefault(number, set()).add((asyncio.get_running_loop(), event))
        return event

    def forget(self, number: int, event: asyncio.Event) -> None:
        """Stop waiting for changes of this run."""
        with self._lock:
            left = {item for item in self._listeners.get(number, ()) if item[1] is not event}
            if left:
                self._listeners[number] = left
            else:
                self._listeners.pop(number, None)


class Follower:
    """One client that follows one run."""

    def __init__(self, hub: Hub, feed: Feed, position: Position) -> None:
        self._hub, self._feed = hub, feed
        self._at = position
        self._seen = 0  # the id of the last event that was read, whether or not it is sent
        self._state = State.MACHINE_REQUESTED
        self._waits_for = ""
        self._queue_look_at = 0.0

    async def stream(self) -> AsyncIterator[bytes]:
        """The stream, until the run has ended and everything was sent, or the server ends."""
        changed = self._hub.listen(self._feed.number)
        changed.set()
        silent_s = 0.0
        try:
            while not self._hub.is_closed:
                sent = False
                for frame in self._news(changed):
                    yield frame
                    await asyncio.sleep(0)  # other followers get their turn between chunks
                    sent = True
                if self._state in FINAL:
                    yield self._end()
                    return
                if sent:
                    silent_s = 0.0
                elif silent_s > _KEEP_ALIVE_S:
                    yield b": still here\n\n"
                    silent_s = 0.0
                silent_s += await _wait(changed, _POLL_S)
        finally:
            self._hub.forget(self._feed.number, changed)

    def _news(self, changed: asyncio.Event) -> Iterator[bytes]:
        """Everything new since the last call. The store is read only after a change, files each time."""
        if changed.is_set():
            changed.clear()
            for event in self._feed.events(self._seen):
                self._seen = event.id
                if event.id > self._at.event:
                    yield from self._files()  # the bytes that were written before this event
                    self._at = replace(self._at, event=event.id)
                    yield self._frame("state", json.dumps(to_wire(event)).encode())
                if event.kind == "state":
                    self._state = State(event.state)
        yield from self._files()
        yield from self._queue()

    def _queue(self) -> Iterator[bytes]:
        """What the run waits for, if that is news. It is looked up once a second, and not at once: most runs start at once."""
        now = time.monotonic()
        if self._state != State.MACHINE_REQUESTED:
            self._queue_look_at, self._waits_for = 0.0, ""
        elif not self._queue_look_at:
            self._queue_look_at = now + _QUEUE_LOOK_S
        elif now > self._queue_look_at:
            self._queue_look_at = now + _QUEUE_LOOK_S
            words = self._feed.waits_for()
            if words and words != self._waits_for:  # none: it has just left the queue
                self._waits_for = words
                yield self._frame("waits", base64.b64encode(words.encode()))

    def _files(self) -> Iterator[bytes]:
        kind = "build" if self._state in _BUILDING else "log"
        read = self._feed.build_log if kind == "build" else self._feed.log
        while True:
            chunk, position = read(getattr(self._at, kind))
            if not chunk:
                return
            self._at = replace(self._at, **{kind: position})
            yield self._frame(kind, base64.b64encode(chunk))

    def _end(self) -> bytes:
        summary = self._feed.summary()
        return self._frame("end", json.dumps(to_wire(summary)).encode())

    def _frame(self, kind: str, data: bytes) -> bytes:
        return b"event: %b\nid: %b\ndata: %b\n\n" % (kind.encode(), str(self._at).encode(), data)


async def _wait(changed: asyncio.Event, limit_s: float) -> float:
    try:
        await asyncio.wait_for(changed.wait(), limit_s)
    except TimeoutError:
        return limit_s
    return 0.0
