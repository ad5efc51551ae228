"""Passes secrets to a reaper through a pipe, as one line of JSON, so that they stay in memory."""

from __future__ import annotations

import json
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK_BYTES = 65536
_SILENCE_MS = 120_000  # we do not notice a spelld that ended before we opened the pipe


def line_of(secrets: Mapping[str, str]) -> bytes:
    """Return the line that spelld writes: variables and their values."""
    return json.dumps(dict(secrets)).encode() + b"\n"


def read_secrets(fd: int) -> dict[str, bytes] | None:
    """Read the secrets from this pipe and close it. Returns None when the writer ended, or wrote nothing for two minutes,
    before the line was complete."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    said = b""
    while not said.endswith(b"\n"):
        chunk = os.read(fd, _CHUNK_BYTES) if poll.poll(_SILENCE_MS) else b""
        if not chunk:
            break
        said += chunk
    os.close(fd)
    if not said.endswith(b"\n"):
        return None
    # bytes, as this process may use another encoding than UTF-8
    return {name: value.encode() for name, value in json.loads(said).items()}
