"""Follows a run: its events and its log in order, also after lost connections."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from orchestrator.client.transport import Transport, lines
from orchestrator.errors import ServerUnavailable
from orchestrator.records import from_wire as record
from orchestrator.records.events import EventRecord
from orchestrator.records.position import Position
from orchestrator.records.run_summary import RunSummary

_SILENCE_S = 45.0  # the server says "still here" every 15 s
_RETRY_S = 0.1
_GIVE_UP_S = 60.0


class Followed(NamedTuple):
    """One item of a followed run: an event, bytes of one of its logs, or its end.

    Attributes:
        kind: `state`, `waits`, `build`, `log` or `end`.
        position: pass this to `follow` to continue after this item.
        event: set if `kind` is `state`.
        data: set if `kind` is `build` or `log`: the bytes as they were written; or if it is `waits`: what the run waits for in
            the queue, in words.
        run: set if `kind` is `end`.
    """

    kind: str
    position: Position
    event: EventRecord | None = None
    data: bytes = b""
    run: RunSummary | None = None


def follow(
    transport: Transport, number: str, position: Position = Position.START, deadline: float | None = None
) -> Iterator[Followed]:
    """Yield the items of a run, as `Runs.follow` describes.

    Raises:
        ServerUnavailable: if no server answers for a minute.
        TimeoutError: after `deadline`, a value of `time.monotonic()`.
    """
    gone_since: float | None = None
    while True:
        try:
            for item in _follow_once(transport, number, position, deadline):
                position, gone_since = item.position, None
                yield item
                if item.kind == "end":
                    return
        except ServerUnavailable as error:
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise TimeoutError(f"Run {number} has not ended in time.") from None
            gone_since = gone_since or now
            if now - gone_since > _GIVE_UP_S:
                raise ServerUnavailable(
                    "The server does not answer; the run may still go on.", f"Follow it with: spell logs -f {number}"
                ) from error
            time.sleep(_RETRY_S)


def _follow_once(transport: Transport, number: str, position: Position, deadline: float | None) -> Iterator[Followed]:
    read_s = _SILENCE_S if deadline is None else max(0.001, min(_SILENCE_S, deadline - time.monotonic()))
    response = transport.stream("GET", f"/runs/{number}/follow", params={"after": str(position)}, read_limit_s=read_s)
    fields: dict[bytes, bytes] = {}
    for line in lines(response):
        if deadline is not None and time.monotonic() >= deadline:
            raise ServerUnavailable(f"Run {number} has not ended in time.")
        if line:
            name, _, value = line.partition(b": ")
            fields[name] = value
        elif b"event" in fields:
            yield _followed(fields)
            fields = {}


def _followed(fields: Mapping[bytes, bytes]) -> Followed:
    kind, position, data = fields[b"event"].decode(), Position.parse(fields[b"id"].decode()), fields[b"data"]
    if kind == "state":
        return Followed(kind, position, event=record(EventRecord, json.loads(data)))
    if kind == "end":
        return Followed(kind, position, run=record(RunSummary, json.loads(data)))
    return Followed(kind, position, data=base64.b64decode(data))
