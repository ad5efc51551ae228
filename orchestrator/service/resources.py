"""Resources: lists and sends outputs of runs and uploads."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.content.followed import Member
from orchestrator.data import resources
from orchestrator.data.tarred import gathered, has_holes, read_chunks, tarred
from orchestrator.records.files import FileRecord
from orchestrator.service.access import Access, Who


@dataclass(frozen=True, slots=True)
class Download:
    """A resource to send.

    Attributes:
        kind: `folder`, `file` or `executable`.
        size_bytes: of all its files.
        chunks: its bytes.
        is_tar: whether it is sent as a tar stream: a folder is, and a sparse file may be.
    """

    kind: str
    size_bytes: int
    chunks: Iterator[bytes]
    is_tar: bool


class Resources:
    """The resources of one home."""

    def __init__(self, found: resources.Resources, access: Access) -> None:
        self._found, self._access = found, access

    def list(self, who: Who, resource: str) -> list[FileRecord]:
        """A folder's entries, or the file itself; raises as `data.resources.Resources.list`."""
        return self._found.list(resource, lambda run: self._access.resolve(who, run))

    def download(self, who: Who, resource: str, *, sparse: bool = False) -> Download:
        """The bytes of a file or folder; raises as `Access.path`.

        Args:
            sparse: send no holes, so that a sparse file becomes a tar stream, too.
        """
        path = self._access.path(who, resource)
        if path.is_dir():
            found = self._found.members(path)
            size = sum(item.status.st_size for item in found if stat.S_ISREG(item.status.st_mode) and not item.link)
            return Download("folder", size, gathered(tarred(found, sparse=sparse)), is_tar=True)
        status = path.stat()
        kind = "executable" if status.st_mode & stat.S_IXUSR else "file"
        if sparse and has_holes(path, status):
            alone = Member(path.name, str(path), status)
            return Download(kind, status.st_size, gathered(tarred([alone], sparse=True)), is_tar=True)
        return Download(kind, status.st_size, read_chunks(path), is_tar=False)
