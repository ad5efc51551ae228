"""Checks of outputs against their recorded hashes."""

from __future__ import annotations

import json
from collections.abc import Callable

from orchestrator.client.transport import Transport, lines, quote
from orchestrator.errors import ServerUnavailable
from orchestrator.records.compare import VerifyRecord, verify_from_wire

_LIMIT_S = 3600.0  # the server sends nothing while it reads one very big file


class Verify:
    """Verifies outputs."""

    def __init__(self, transport: Transport) -> None:
        self._stream = transport.stream

    def outputs(
        self, reference: int | str, on_progress: Callable[[int, int], object] = lambda _done, _total: None
    ) -> VerifyRecord:
        """Compare the outputs of a run with their recorded hashes.

        Args:
            on_progress: called from time to time with the number of bytes read, and of all bytes.
        """
        for line in lines(self._stream("POST", f"/runs/{quote(reference)}/verify", read_limit_s=_LIMIT_S)):
            words = json.loads(line)
            if "done" not in words:
                return verify_from_wire(words)
            on_progress(words["done"], words["total"])
        raise ServerUnavailable("The server ended before everything was read.", "See: spell server logs")
