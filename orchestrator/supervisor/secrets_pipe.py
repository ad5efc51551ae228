"""How secrets come to a reaper: through a pipe, as one line of JSON, and so in memory only."""

from __future__ import annotations

import json
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK_BYTES = 65536
_SILENCE_MS = 120_000  # a spelld that is gone before the pipe was opened here is not seen to be gone


def line_of(secrets: Mapping[str, str]) -> bytes:
    """What spelld writes: variables and their values."""
    return json.dumps(dict(secrets)).encode() + b"\n"


def read_secrets(fd: int) -> dict[str, bytes] | None:
    """What is written into this pipe, which is closed; None when who writes was gone, or silent for two minutes, before it
    had written all."""
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
    # bytes, as this process may believe in another encoding than UTF-8
    return {name: value.encode() for name, value in json.loads(said).items()}
