"""Finds the engine's socket, and checks whether an engine answers there. Standard library only, as it runs at every start.

Docker's own order (https://docs.docker.com/engine/manage-resources/contexts/): DOCKER_HOST, DOCKER_CONTEXT or the
context chosen with `docker context use`, the usual socket; then those of rootless Docker and of podman.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

PING_LIMIT_S = 2.0
AGAIN_LIMIT_S = 1.0  # for an engine that did not answer the last time: many callers may wait


def find_host(configured: str, env: Mapping[str, str]) -> tuple[str, bool]:
    """Return the address of the engine, and whether it was named by the configuration or a variable.

    Returns:
        `unix:///…`, or another address that we refuse later; "" when none was found.

    Args:
        configured: the address in the configuration; wins if it is set.
        env: the server's environment variables.
    """
    named = configured or env.get("DOCKER_HOST", "") or _of_context(env)
    if named:
        return named, True
    return next((f"unix://{path}" for path in _usual_places(env) if path.exists()), ""), False


def answers(host: str, limit_s: float = PING_LIMIT_S) -> bool:
    """Whether an engine answers at this Unix socket, within `limit_s` seconds."""
    connection = _UnixConnection(host.removeprefix("unix://"), limit_s)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _usual_places(env: Mapping[str, str]) -> Iterator[Path]:
    yield Path("/var/run/docker.sock")
    if runtime := env.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "docker.sock")
        yield Path(runtime, "podman", "podman.sock")


def _of_context(env: Mapping[str, str]) -> str:
    missing = ""
    folder = Path(env.get("DOCKER_CONFIG") or Path(env.get("HOME") or "~").expanduser() / ".docker")
    try:
        name = env.get("DOCKER_CONTEXT") or json.loads((folder / "config.json").read_bytes()).get("currentContext", "")
        if not name or name == "default":
            return ""
        missing = f"context://{name}"
        meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
        return str(json.loads(meta.read_bytes())["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return missing  # a context that was named but does not exist is refused, not replaced by another


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, limit_s: float) -> None:
        super().__init__("localhost", timeout=limit_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))
