"""Starts an exec and returns its two-way socket. The engine turns the connection of the request into that socket:
https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Exec/operation/ExecStart

The SDK does this too, but what came in one packet with the answer's headers stays in a buffer that no caller can read:
docker/docker-py#425, "Data lost in attach/execute/logs due to raw socket handling code", closed without a fix.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket

from orchestrator.engine.connection import Engine, EngineError

_ANSWER_LIMIT_S = 30.0
_MAX_ANSWER_BYTES = 64 << 10
_HANDED_OVER = (http.HTTPStatus.SWITCHING_PROTOCOLS, http.HTTPStatus.OK)


def start_exec(engine: Engine, exec_id: str, *, terminal: bool) -> socket.socket:
    """Start an exec that was created. Returns the socket of its input and output, which blocks without a time limit.

    Raises:
        EngineError: when it cannot be started, or the engine does not answer.
    """
    connection = socket.socket(socket.AF_UNIX)
    with contextlib.ExitStack() as on_error:
        on_error.callback(connection.close)
        try:
            connection.settimeout(_ANSWER_LIMIT_S)
            connection.connect(engine.host.removeprefix("unix://"))
            connection.sendall(_request(engine.api.api_version, exec_id, terminal=terminal))
            head = _head(connection)
            status = int(head.split(None, 2)[1])
            if status not in _HANDED_OVER:
                raise EngineError(_words(connection, head), status=status)
        except (OSError, IndexError, ValueError) as error:
            raise EngineError(f"the Docker engine at {engine.host} does not answer: {error}") from error
        connection.settimeout(None)
        on_error.pop_all()
    return connection


def _request(version: str, exec_id: str, *, terminal: bool) -> bytes:
    body = json.dumps({"Detach": False, "Tty": terminal}).encode()
    lines = (
        f"POST /v{version}/exec/{exec_id}/start HTTP/1.1",
        "Host: docker",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: Upgrade",
        "Upgrade: tcp",
        "\r\n",
    )
    return "\r\n".join(lines).encode() + body


def _head(connection: socket.socket) -> bytes:
    """Read status line and headers of the answer, and not one byte more."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte or len(head) > _MAX_ANSWER_BYTES:
            raise ConnectionError("the engine closed the connection")
        head += byte
    return bytes(head)


def _words(connection: socket.socket, head: bytes) -> str:
    """Return the message of an error answer."""
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    left, body = min(int(length.partition(b":")[2]), _MAX_ANSWER_BYTES), b""
    while len(body) < left and (chunk := connection.recv(left - len(body))):
        body += chunk
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["message"])
    return body.decode(errors="replace") or head.split(b"\r\n", 1)[0].decode(errors="replace")
