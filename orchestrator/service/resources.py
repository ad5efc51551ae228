"""Resources: lists and sends outputs of runs and uploads."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from orchestrator.content.followed import Member
from orchestrator.content.manifest import printable
from orchestrator.data import resources
from orchestrator.data.tarred import gathered, has_holes, read_chunks, read_exactly, tarred, tarred_now
from orchestrator.data.unsaved import Entry, Unsaved
from orchestrator.errors import NotFound
from orchestrator.records.files import FileRecord
from orchestrator.service.access import Access, Who
from orchestrator.service.unsaved import UnsavedFiles


@dataclass(frozen=True, slots=True)
class Download:
    """A resource to send.

    Attributes:
        kind: `folder`, `file` or `executable`.
        size_bytes: of all its files.
        chunks: its bytes.
        is_tar: whether it is sent as a tar stream: a folder is, and a sparse file may be.
        is_final: False for files of a run that has not ended.
    """

    kind: str
    size_bytes: int
    chunks: Iterator[bytes]
    is_tar: bool
    is_final: bool = True


class Resources:
    """The resources of one home. Those of a run that has not ended are what lies in its work dir."""

    def __init__(self, found: resources.Resources, access: Access, unsaved: UnsavedFiles) -> None:
        self._found, self._access, self._unsaved = found, access, unsaved

    def list(self, who: Who, resource: str) -> list[FileRecord]:
        """A folder's entries, or the file itself; raises as `data.resources.Resources.list`."""
        if (live := self._live(who, resource)) is not None:
            number, unsaved, path = live
            alone = unsaved.file(path) if path else None
            entries = [alone] if alone else unsaved.children(path)
            if not self._unsaved.is_final(number):  # else it has ended meanwhile
                if path and not entries:
                    raise _nothing(number, path)
                return [_record(entry) for entry in entries]
        found = self._found.list(resource, lambda run: self._access.resolve(who, run))
        if resource.strip("/") == "runs":
            found += [FileRecord(str(run), 0, 0.0, is_dir=True, final=False) for run in self._unsaved.numbers()]
        return found

    def _live(self, who: Who, resource: str) -> tuple[int, Unsaved, str] | None:
        """The run, if it has not ended, its files so far, and the path in them that a resource names."""
        if resource.strip("/") in ("", "."):
            return None
        return self._unsaved.of(self._access.resolve_resource(who, resource))

    def download(self, who: Who, resource: str, *, sparse: bool = False) -> Download:
        """The bytes of a file or folder; raises as `Access.path`.

        Args:
            sparse: send no holes, so that a sparse file becomes a tar stream, too.
        """
        if (live := self._live(who, resource)) is not None:
            number, unsaved, below = live
            found_now = _download_now(unsaved, below)
            if found_now:
                return found_now
            if not self._unsaved.is_final(number):  # else it has ended meanwhile
                raise _nothing(number, below)
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


def _download_now(unsaved: Unsaved, path: str) -> Download | None:
    """What a run that has not ended has at a path; None for nothing."""
    if path and unsaved.file(path) and (file := unsaved.open(path)):
        status = os.fstat(file.fileno())
        kind = "executable" if status.st_mode & stat.S_IXUSR else "file"
        return Download(kind, status.st_size, _closing(file, status.st_size), is_tar=False, is_final=False)
    found = unsaved.members(path)
    if path and not found:
        return None
    size = sum(item.status.st_size for item in found if stat.S_ISREG(item.status.st_mode) and not item.link)
    return Download("folder", size, gathered(tarred_now(found, unsaved.open)), is_tar=True, is_final=False)


def _closing(file: BinaryIO, size: int) -> Iterator[bytes]:
    with file:
        yield from read_exactly(file, size)


def _nothing(number: int, path: str) -> NotFound:
    return NotFound(
        f"Run {number}, which has not ended, has no {printable(path)!r} yet.",
        f"See what it has: spell ls runs/{number}",
    )


def _record(entry: Entry) -> FileRecord:
    status, link = entry.status, printable(entry.link)
    is_dir = stat.S_ISDIR(status.st_mode)
    return FileRecord(
        printable(entry.path.rpartition("/")[2]), status.st_size, status.st_mtime, is_dir, link, final=False
    )
