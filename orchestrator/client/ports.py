"""The ports that runs listen on: lists them, and forwards ports of this machine to them. `orchestrator/server/routes/ports.py`
describes the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from orchestrator.client.transport import Transport, quote
from orchestrator.errors import Conflict, InvalidConfig, ServerUnavailable, SpellError
from orchestrator.errors import from_wire as error_from_wire
from orchestrator.records import API_VERSION, from_wire
from orchestrator.records.ports import PortRecord
from orchestrator.states import FINAL

LOOPBACK = "127.0.0.1"
_CHUNK_BYTES = 64 << 10
_MOST_PORT = 65535
_WAITING = 128  # connections that wait until the run listens
_BREAK = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
_CLOSE_LIMIT_S = 1.0
_FIRST_LOOK_S, _LAST_LOOK_S = 0.05, 0.5
_RUNNING = "running"


class Ports:
    """Lists and forwards the ports of runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, reference: int | str) -> list[PortRecord]:
        """Return the TCP ports that processes of a run listen on, in order.

        Raises:
            NotFound: if the run does not exist.
            Conflict: if it is not running.
        """
        return [from_wire(PortRecord, item) for item in self._transport.call("GET", f"/runs/{quote(reference)}/ports")]

    def wait(self, reference: int | str, port: int) -> bool:
        """Wait until a run listens on a port. Returns False when the run has ended."""
        pause_s = _FIRST_LOOK_S
        while (state := self._transport.call("GET", f"/runs/{quote(reference)}")["state"]) not in FINAL:
            with contextlib.suppress(Conflict):  # it has just ended
                if state == _RUNNING and any(item.port == port for item in self.list(reference)):
                    return True
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_LOOK_S)
        return False

    def forward(
        self,
        reference: int | str,
        port: int,
        local: int | None = None,
        complain: Callable[[SpellError], None] = lambda _: None,
    ) -> Forward:
        """Take a port of this machine for a port of a run. Connections to it wait for `Forward.open`.

        Args:
            port: of the run; it need not listen yet.
            local: port on the loopback of this machine; None for the same number, 0 for a free one.
            complain: called, from another thread, with the error of a connection that could not be made.

        Raises:
            NotFound: if the run does not exist.
            Conflict: if the local port is taken.
        """
        number = self._transport.call("GET", f"/runs/{quote(reference)}")["number"]
        return Forward(self._transport, number, port, port if local is None else local, complain)


class Forward:
    """A port of this machine that leads to a port of a run, and a context manager.

    Attributes:
        number: of the run.
        port: of the run.
        local: port on the loopback of this machine.
    """

    def __init__(
        self, transport: Transport, number: int, port: int, local: int, complain: Callable[[SpellError], None]
    ) -> None:
        self.number, self.port = number, port
        self._transport, self._complain = transport, complain
        self._listener = _listen(port, local)
        self.local: int = self._listener.getsockname()[1]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._open = threading.Event()
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether connections are forwarded."""
        return self._open.is_set()

    def open(self) -> None:
        """Begin to forward connections, those that wait first."""
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), name="forward", daemon=True)
        self._thread.start()
        self._open.wait()

    def close(self) -> None:
        """Close the port and all connections."""
        loop, self._loop = self._loop, None
        if loop and self._thread:
            loop.call_soon_threadsafe(self._over.set)
            self._thread.join()
        self._listener.close()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=self._listener, limit=_CHUNK_BYTES)
        self._open.set()
        await self._over.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._lead(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection. One that could not be made, or that was broken, is broken here, too."""
        is_whole = False
        try:
            async with await self._connect() as websocket:
                await _pass_on(websocket, reader, writer)
                is_whole = True
        except SpellError as error:
            self._complain(error)
        except (ConnectionClosed, OSError):  # the server has ended, or the program on this side has gone
            pass
        finally:
            if not is_whole:
                connection = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BREAK)
            writer.close()

    async def _connect(self) -> ClientConnection:
        try:
            websocket = await self._reach()
        except OSError:  # the server has ended: any request starts another one
            await asyncio.to_thread(self._transport.call, "GET", f"/runs/{self.number}")
            websocket = await self._reach()
        words = json.loads(await websocket.recv())
        if "error" in words:
            await websocket.close()
            raise error_from_wire(words, 0)
        return websocket

    async def _reach(self) -> ClientConnection:
        home = self._transport.home
        home.check_socket()
        try:
            return await unix_connect(
                str(home.socket),
                f"ws://spell/runs/{self.number}/ports/{self.port}",
                additional_headers={"Spell-Api": str(API_VERSION)},
                compression=None,
                ping_interval=None,  # a Unix socket shows at once that the other side is gone
                close_timeout=_CLOSE_LIMIT_S,
                max_size=None,
            )
        except InvalidHandshake as error:
            words = f"The server of {home.root} did not forward the connection: {error}."
            raise ServerUnavailable(words, "It may be older than this spell: spell server stop") from error


async def _pass_on(websocket: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on in both directions until both have ended. Raises OSError or ConnectionClosed when one side breaks."""
    tasks = asyncio.ensure_future(_up(websocket, reader)), asyncio.ensure_future(_down(websocket, writer))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


async def _up(websocket: Connection, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        await websocket.send(data)
    await websocket.send('{"eof": true}')


async def _down(websocket: Connection, writer: asyncio.StreamWriter) -> None:
    """Pass on what the run sends. Raises ConnectionResetError where it breaks the connection."""
    while True:
        frame = await websocket.recv()
        if isinstance(frame, bytes):
            writer.write(frame)
            await writer.drain()
        elif "eof" in json.loads(frame):
            writer.write_eof()
            return
        else:
            raise ConnectionResetError


def _listen(port: int, local: int) -> socket.socket:
    if not (0 < port <= _MOST_PORT and 0 <= local <= _MOST_PORT):
        raise InvalidConfig(f"{port}:{local} names no ports: these are numbers from 1 to {_MOST_PORT}.")
    listener = socket.socket(socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, local))
        listener.listen(_WAITING)
    except OSError as error:
        listener.close()
        cure = f"Take another one, {port}:NUMBER, or {port}:0 for any that is free."
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"Another program of this machine listens on port {local}.", cure) from error
        raise Conflict(f"Port {local} of this machine cannot be taken: {error.strerror}.", cure) from error
    return listener
