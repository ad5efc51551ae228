"""Exports of runs: archives that run without spell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.client.transport import Transport, chunks, quote

_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that is being downloaded.

    Attributes:
        run: its number.
        size_bytes: of all its files.
        warnings: differences from the run as it was.
        chunks: of a tar archive; everything in it is below `run-N/`, and its last file is `SHA256SUMS`.
    """

    run: int
    size_bytes: int
    warnings: list[str]
    chunks: Iterator[bytes]


class Export:
    """Exports runs."""

    def __init__(self, transport: Transport) -> None:
        self._stream = transport.stream

    def download(self, reference: int | str, *, inputs: bool = False, outputs: bool = False) -> Exported:
        """Export a run as a tar archive.

        Args:
            inputs: include the resources that it mounted.
            outputs: include its outputs.
        """
        query = {"inputs": inputs, "outputs": outputs}
        answer = self._stream("GET", f"/runs/{quote(reference)}/export", params=query, read_limit_s=_LIMIT_S)
        headers = answer.headers
        number, size_bytes = int(headers["spell-run"]), int(headers["spell-total-bytes"])
        return Exported(number, size_bytes, json.loads(headers["spell-warnings"]), chunks(answer))
