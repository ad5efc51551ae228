"""Resources: outputs of runs, uploads and targets of links."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.client.transport import Transport, chunks, quote_path
from orchestrator.records import from_wire
from orchestrator.records.files import FileRecord


@dataclass(frozen=True, slots=True)
class Download:
    """A resource that is being downloaded.

    Attributes:
        kind: `file`, `executable` or `folder`.
        size_bytes: of all its files.
        chunks: the bytes of a file, or a tar stream of a folder; can be read once.
        is_tar: whether it is a tar stream: that of a folder, or of one sparse file.
        is_final: False for files of a run that has not ended: as they are now.
    """

    kind: str
    size_bytes: int
    chunks: Iterator[bytes]
    is_tar: bool = False
    is_final: bool = True

    def read(self) -> bytes:
        """Return all bytes at once."""
        return b"".join(self.chunks)


class Resources:
    """Lists and downloads resources."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, resource: str = "") -> list[FileRecord]:
        """Return the entries of a folder, or the file itself; "" is the top of the tree."""
        found = self._transport.call("GET", f"/resources/{quote_path(resource)}")
        return [from_wire(FileRecord, item) for item in found]

    def download(self, resource: str, *, sparse: bool = False) -> Download:
        """Download a file, or a folder as a tar stream.

        Args:
            sparse: a file with holes, too, comes as a tar stream, without its holes.
        """
        query = {"sparse": sparse} if sparse else None
        answer = self._transport.stream("GET", f"/files/{quote_path(resource)}", params=query)
        headers = answer.headers
        is_tar = headers.get("content-type", "") == "application/x-tar"
        return Download(
            headers["spell-kind"],
            int(headers["spell-total-bytes"]),
            chunks(answer),
            is_tar,
            "spell-final" not in headers,
        )
