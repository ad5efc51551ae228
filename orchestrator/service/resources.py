"""Resources: lists and sends outputs of runs and uploads."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.data import resources
from orchestrator.records.files import FileRecord
from orchestrator.service.access import Access, Who


@dataclass(frozen=True, slots=True)
class Download:
    """A resource to send.

    Attributes:
        kind: `folder` (sent as a tar stream), `file` or `executable`.
        size_bytes: of all its files.
        chunks: its bytes.
    """

    kind: str
    size_bytes: int
    chunks: Iterator[bytes]


class Resources:
    """The resources of one home."""

    def __init__(self, found: resources.Resources, access: Access) -> None:
        self._found, self._access = found, access

    def list(self, who: Who, resource: str) -> list[FileRecord]:
        """A folder's entries, or the file itself; raises as `data.resources.Resources.list`."""
        return self._found.list(resource, lambda run: self._access.resolve(who, run))

    def download(self, who: Who, resource: str) -> Download:
        """The bytes of a file or folder; raises as `Access.path`."""
        path = self._access.path(who, resource)
        if path.is_dir():
            size_bytes, parts = self._found.archive(path)
            return Download("folder", size_bytes, resources.gathered(parts))
        status = path.stat()
        kind = "executable" if status.st_mode & stat.S_IXUSR else "file"
        return Download(kind, status.st_size, resources.read_chunks(path))
