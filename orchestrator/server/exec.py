"""An additional command beside that of a run, over a WebSocket: `/runs/{reference}/exec`.

The client's first frame describes the command; then both sides send at any time:

    client  text    {"command": [WORD…], "terminal": true, "term": "xterm", "size": [COLUMNS, ROWS]}
            binary  0, then what is typed
            text    {"resize": [COLUMNS, ROWS]}
            text    {"eof": true}           nothing more will be typed
    server  binary  1 or 2, then what the command writes to its stdout or stderr
            text    {"taken": BYTES}        so much of what was typed has reached the command
            text    {"exit_code": N, "run_is_over": false}
                                            its end, and whether the run's was the cause; or {"error": …}, as everywhere

A client sends at most `WINDOW_BYTES` that the command has not read. So a command that does not read stops the typed bytes,
and not the frames behind them. When the connection is lost, the server ends the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from orchestrator.errors import InvalidConfig, SpellError
from orchestrator.server.dependencies import Person, TheService
from orchestrator.service.exec import RunningExec

router = APIRouter()

WINDOW_BYTES = 1 << 20
_log = logging.getLogger(__name__)
T = TypeVar("T")
_THREADS = ThreadPoolExecutor(64, "exec")
_Typed = bytes | tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class _Command:
    """The command in the first frame."""

    command: list[str]
    terminal: bool
    term: str
    size: tuple[int, int] | None


@router.websocket("/runs/{reference}/exec")
async def run_exec(websocket: WebSocket, reference: str, service: TheService, who: Person) -> None:
    """Run a command, or a shell, beside that of a running run."""
    await websocket.accept()
    running: RunningExec | None = None
    outcome: Mapping[str, Any] | None = None
    try:
        asked = _command(await websocket.receive())
        running = await _apart(
            lambda: service.exec.start(who, reference, asked.command, asked.term, terminal=asked.terminal)
        )
        outcome = await _Talk(websocket, running, asked.size).lead()
    except WebSocketDisconnect:
        pass
    except SpellError as error:
        outcome = error.to_wire()
    except Exception as error:
        _log.exception("an exec failed")
        words = SpellError(f"spelld met an internal error: {type(error).__name__}.", "See: spell server logs")
        outcome = words.to_wire()
    finally:
        if running:
            await _apart(running.close)
    if outcome:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the client has just gone
            await websocket.send_json(outcome)
            await websocket.close()


async def _apart(action: Callable[[], T]) -> T:
    """Call something in the threads for exec: an engine that hangs blocks no other request."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, action)


async def refuse(websocket: WebSocket, error: SpellError) -> None:
    """Answer a client that asks for an exec with an error."""
    await websocket.accept()
    await websocket.send_json(error.to_wire())
    await websocket.close()


def _command(frame: Mapping[str, Any]) -> _Command:
    if frame["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(frame["code"])
    try:
        words = json.loads(frame["text"])
        command, size = [str(word) for word in words["command"]], words.get("size")
        return _Command(command, bool(words["terminal"]), str(words.get("term", "")), _size(size) if size else None)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidConfig(f"The first frame does not describe a command: {error}.") from error


def _size(words: Any) -> tuple[int, int]:
    columns, rows = (max(1, min(int(number), 10_000)) for number in words)
    return columns, rows


class _Talk:
    """Passes bytes to and from a command: one thread for each direction, all frames from one event loop."""

    def __init__(self, websocket: WebSocket, running: RunningExec, size: tuple[int, int] | None) -> None:
        self._websocket, self._running = websocket, running
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Mapping[str, Any] | None] = self._loop.create_future()
        self._typed: queue.SimpleQueue[_Typed] = queue.SimpleQueue()
        self._untaken_bytes = 0
        if size:
            self._typed.put(size)

    async def lead(self) -> Mapping[str, Any] | None:
        """Pass bytes until the command has ended (returns the last frame) or the client has gone (returns None)."""
        for work in (self._type, self._speak):
            threading.Thread(target=work, name="exec", daemon=True).start()
        listening = asyncio.ensure_future(self._listen())
        either: list[asyncio.Future[Any]] = [listening, self._ended]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()  # the client broke the protocol
            return self._ended.result() if self._ended.done() else None
        finally:
            listening.cancel()
            self._typed.put(None)

    async def _listen(self) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                frame = await self._websocket.receive()
                if frame["type"] == "websocket.disconnect":
                    return
                self._take(frame)

    def _take(self, frame: Mapping[str, Any]) -> None:
        if data := frame.get("bytes"):
            self._untaken_bytes += len(data)
            if data[0] != 0 or self._untaken_bytes > 2 * WINDOW_BYTES:
                raise InvalidConfig("The client broke the protocol of exec.")
            if len(data) > 1:
                self._typed.put(data[1:])
            return
        try:
            words = json.loads(frame["text"])
            self._typed.put(b"" if words.get("eof") else _size(words["resize"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise InvalidConfig("The client broke the protocol of exec.") from error

    def _type(self) -> None:
        while (item := self._typed.get()) is not None:
            if isinstance(item, tuple):
                self._running.resize(*item)
                continue
            self._running.write(item)
            if item and not self._wait_for(self._taken(len(item))):
                return

    async def _taken(self, count: int) -> None:
        self._untaken_bytes -= count + 1  # the byte that names the channel
        await self._websocket.send_json({"taken": count})

    def _speak(self) -> None:
        outcome: Mapping[str, Any] | None
        try:
            for channel, data in self._running.read():
                if not self._wait_for(self._websocket.send_bytes(bytes([channel]) + data)):
                    return
            outcome = {"exit_code": self._running.exit_code(), "run_is_over": self._running.run_is_over}
        except Exception as error:
            _log.exception("an exec failed")
            outcome = (error if isinstance(error, SpellError) else SpellError(f"{type(error).__name__}")).to_wire()
        with contextlib.suppress(RuntimeError, asyncio.InvalidStateError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._end, outcome)

    def _end(self, outcome: Mapping[str, Any] | None) -> None:
        if not self._ended.done():
            self._ended.set_result(outcome)

    def _wait_for(self, sending: Coroutine[Any, Any, None]) -> bool:
        """Send something from the event loop, and wait until it is sent. Returns False when the client has gone."""
        try:
            asyncio.run_coroutine_threadsafe(sending, self._loop).result()
        except Exception:
            sending.close()
            return False
        return True
