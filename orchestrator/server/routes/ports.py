"""The ports that runs listen on: listed, and forwarded over a WebSocket for each connection, `/runs/{reference}/ports/{port}`.

    server  text    {"connected": true}     or {"error": …}, as everywhere
    both    binary  what is passed on
            text    {"eof": true}           this side sends nothing more; the other may go on
    server  text    {"reset": true}         the program has broken the connection

A side that does not read is not sent more: the frames wait in TCP and Unix sockets, not in memory.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.responses import Response

from orchestrator.errors import SpellError
from orchestrator.records.ports import PortRecord
from orchestrator.server.dependencies import Person, TheService, answer
from orchestrator.server.exec import refuse

router = APIRouter()

_CHUNK_BYTES = 64 << 10
_BREAK = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
_THREADS = ThreadPoolExecutor(16, "ports")


@router.get("/runs/{reference}/ports", response_model=list[PortRecord])
def ports(reference: str, service: TheService, who: Person) -> Response:
    """The TCP ports that processes of a run listen on."""
    return answer(service.ports.list(who, reference))


@router.websocket("/runs/{reference}/ports/{port}")
async def forward(websocket: WebSocket, reference: str, port: int, service: TheService, who: Person) -> None:
    """Forward one connection to a port of a run."""
    loop = asyncio.get_running_loop()
    try:  # in a thread: an engine that hangs blocks no other request
        connection = await loop.run_in_executor(_THREADS, lambda: service.ports.connect(who, reference, port))
    except SpellError as error:
        await refuse(websocket, error)
        return
    reader, writer = await asyncio.open_connection(sock=connection, limit=_CHUNK_BYTES)
    try:
        await websocket.accept()
        await websocket.send_json({"connected": True})
        await _pass_on(websocket, reader, writer)
        await websocket.close()
    except (WebSocketDisconnect, RuntimeError):  # the client has gone
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BREAK)
    finally:
        writer.close()


async def _pass_on(websocket: WebSocket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on in both directions until both have ended. Raises WebSocketDisconnect when the client has gone."""
    all_sent = asyncio.Event()
    down = asyncio.ensure_future(_down(websocket, reader, all_sent))
    up = asyncio.ensure_future(_up(websocket, writer, all_sent))
    try:
        done, _ = await asyncio.wait((down, up), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except OSError:
        await websocket.send_json({"reset": True})
        return
    finally:
        down.cancel()
        up.cancel()
    if down not in done:
        raise WebSocketDisconnect


async def _down(websocket: WebSocket, reader: asyncio.StreamReader, all_sent: asyncio.Event) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        await websocket.send_bytes(data)
    await websocket.send_json({"eof": True})
    await all_sent.wait()


async def _up(websocket: WebSocket, writer: asyncio.StreamWriter, all_sent: asyncio.Event) -> None:
    """Pass on what the client sends, until it has gone."""
    while (frame := await websocket.receive())["type"] != "websocket.disconnect":
        if data := frame.get("bytes"):
            writer.write(data)
            await writer.drain()
        elif frame.get("text"):  # its end
            writer.write_eof()
            all_sent.set()
