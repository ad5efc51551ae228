"""Sending an upload: only what the server lacks, small files many at a time, big ones in chunks; goes on where it was."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from orchestrator.datatree import DataTree
from orchestrator.errors import Conflict, ServerUnavailable, UploadLost
from orchestrator.packs import SMALL_BYTES, grouped, pack
from orchestrator.records.uploads import UploadRecord, UploadSession
from orchestrator.remote.uploads import Uploads

CHUNK_BYTES = 8 << 20
_SENDERS = 3
_TRIES = 3

_Said = Callable[[int], object]


def upload(
    uploads: Uploads, name: str, tree: DataTree, *, replace: bool = False, said: _Said = lambda _bytes: None
) -> UploadRecord:
    """Upload a tree, as `uploads/NAME`. A server that restarts meanwhile is found again.

    Args:
        uploads: of the server.
        replace: whether it may take the place of another one of this name.
        said: called with the number of bytes that are there now and were not before, from any thread.

    Raises:
        Conflict: something changed meanwhile; or there is an upload of this name, with other content.
        SpellError: whatever the server refuses, as the class that it raised.
    """
    manifest = tree.manifest.to_json()
    told = 0

    def count(size: int) -> None:
        nonlocal told
        told += size
        said(size)

    for left in reversed(range(_TRIES)):
        try:
            opened = uploads.open(name, manifest, replace=replace)
            if opened.upload:
                return opened.upload
            sender = _Sender(uploads, name, tree, opened, count)
            count(sender.there_bytes - told)
            sender.send()
            tree.check_still()
            return uploads.publish(name, opened.session, replace=replace)
        except (ServerUnavailable, UploadLost):
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


class _Sender:
    """Sends what is missing."""

    def __init__(self, uploads: Uploads, name: str, tree: DataTree, opened: UploadSession, said: _Said) -> None:
        self._uploads, self._name, self._tree, self._opened, self._said = uploads, name, tree, opened, said
        self._sizes = {entry.digest: entry.size for entry in tree.manifest.entries}
        self._over = False
        missing = set(opened.missing)
        lacked = sum(entry.size for entry in tree.manifest.entries if entry.digest in missing)
        self.there_bytes = sum(entry.size for entry in tree.manifest.entries) - lacked + sum(opened.begun.values())
        self._copies: dict[str, int] = {}
        for entry in tree.manifest.entries:
            self._copies[entry.digest] = self._copies.get(entry.digest, 0) + 1

    def send(self) -> None:
        """Send all of it, in several threads; of what fails, the first error is raised."""
        with ThreadPoolExecutor(_SENDERS) as pool:
            try:
                jobs = [pool.submit(job) for job in self._jobs()]
                for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                    job.result()
            except BaseException:
                self._over = True  # ^C ends within a chunk
                pool.shutdown(cancel_futures=True)
                raise

    def _jobs(self) -> Iterator[Callable[[], None]]:
        places = self._tree.places
        ordered = sorted(self._opened.missing, key=lambda digest: places[digest])  # as they lie on the disk
        small = [digest for digest in ordered if self._sizes[digest] <= SMALL_BYTES]
        for digest in ordered:
            if self._sizes[digest] > SMALL_BYTES:
                yield functools.partial(self._send_big, digest)
        for group in grouped((digest, self._sizes[digest]) for digest in small):
            yield functools.partial(self._send_pack, group)

    def _send_pack(self, digests: list[str]) -> None:
        if self._over:
            return
        body = pack((digest, self._small(digest)) for digest in digests)
        self._uploads.add_pack(self._name, self._opened.session, body)
        self._said(sum(self._sizes[digest] * self._copies[digest] for digest in digests))

    def _small(self, digest: str) -> bytes:
        try:
            data = self._tree.content(digest, self._sizes[digest])
        except OSError:
            data = b""
        if len(data) != self._sizes[digest]:
            self._refuse_changed()
        return data

    def _send_big(self, digest: str) -> None:
        offset, size = self._opened.begun.get(digest, 0), self._sizes[digest]
        with open(self._tree.places[digest], "rb", opener=_open_file) as file:
            file.seek(offset)
            while offset < size and not self._over:
                data = file.read(min(CHUNK_BYTES, size - offset))
                if not data:
                    self._refuse_changed()
                self._uploads.add_chunk(self._name, self._opened.session, digest, offset, data)
                offset += len(data)
                self._said(len(data))
        self._said(size * (self._copies[digest] - 1))

    def _refuse_changed(self) -> None:
        self._tree.check_still()
        raise Conflict("A file changed while it was being uploaded.", "Upload again.")


def _open_file(place: str, flags: int) -> int:
    """Neither follows a link, nor waits for a pipe, in the file's place."""
    return os.open(place, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def default_name(path: str) -> str:
    """What an upload of `path` is called unless somebody says otherwise: as the folder or file is."""
    return os.path.basename(os.path.realpath(path) if os.path.isdir(path) else os.path.abspath(path))
