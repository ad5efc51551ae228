"""Sending an upload: hashed and sent portion by portion, only what the server lacks; goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from orchestrator.capture.datatree import DataTree, Portion
from orchestrator.content.manifest import Manifest
from orchestrator.content.packs import pack
from orchestrator.errors import Conflict, ServerUnavailable, UploadLost
from orchestrator.records.uploads import UploadRecord

if TYPE_CHECKING:
    from orchestrator.client.uploads import Uploads

CHUNK_BYTES = 8 << 20
_SENDERS = 4  # one reads, the others wait for the server
_TRIES = 3
_KEPT_BYTES = 64 << 20

_Progress = Callable[[int], object]


def upload(
    uploads: Uploads, name: str, tree: DataTree, *, replace: bool = False, on_progress: _Progress = lambda _bytes: None
) -> UploadRecord:
    """Upload a tree, as `uploads/NAME`. A server that restarts meanwhile is found again.

    Args:
        uploads: of the server.
        replace: whether it may take the place of another one of this name.
        on_progress: called with the number of bytes that are there now and were not before, from any thread.

    Raises:
        Conflict: something changed before it was read (all that is uploaded lay there at one moment); or there is an
            upload of this name, with other content.
        SpellError: whatever the server refuses, as the class that it raised.
    """
    sender = _Sender(uploads, name, tree, on_progress)
    for left in reversed(range(_TRIES)):
        try:
            opened = uploads.open(name, tree.total_bytes, replace=replace)
            if opened.upload:  # nothing is sent before it is known whether that is this one
                sender.read()
                opened = uploads.open(name, tree.total_bytes, tree.manifest.tree, replace=replace)
            if opened.upload:
                return opened.upload
            sender.send(opened.session)
            return uploads.publish(name, opened.session, tree.manifest.tree, replace=replace)
        except (ServerUnavailable, UploadLost):
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


class _Sender:
    """Reads a tree and sends what is missing, several portions at once."""

    def __init__(self, uploads: Uploads, name: str, tree: DataTree, on_progress: _Progress) -> None:
        self._uploads, self._name, self._tree, self._on_progress = uploads, name, tree, on_progress
        self._session = ""
        self._kept_bytes = 0
        self._over = False

    def read(self) -> None:
        """Hash all files, and send nothing yet."""
        self._each(self._read)

    def send(self, session: str) -> None:
        """Send all that is missing."""
        self._session = session
        self._each(self._send)

    def _each(self, action: Callable[[Portion], object]) -> None:
        """Of what fails, the first error is raised."""
        self._over = False
        with ThreadPoolExecutor(_SENDERS) as pool:
            try:
                jobs = [pool.submit(action, portion) for portion in self._tree.portions]
                for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                    job.result()
            except BaseException:
                self._over = True  # ^C ends within a chunk
                pool.shutdown(cancel_futures=True)
                raise

    def _read(self, portion: Portion) -> None:
        self._tree.read(portion, lambda: self._over)
        self._kept_bytes += sum(map(len, portion.kept.values()))
        if self._kept_bytes > _KEPT_BYTES:
            portion.kept.clear()

    def _send(self, portion: Portion) -> None:
        self._tree.read(portion, lambda: self._over)
        if self._over:
            return
        entries = portion.entries
        needs = self._uploads.announce(self._name, self._session, Manifest(tuple(entries)).to_json())
        sizes = {entry.digest: entry.size for entry in entries}
        missing = sizes.keys() if needs.missing is None else set(needs.missing)
        total_bytes = sum(entry.size for entry in entries)
        lacking_bytes = sum(entry.size for entry in entries if entry.digest in missing)
        self._tell(portion, total_bytes - lacking_bytes + sum(needs.begun.values()))
        if portion.is_big and missing:
            self._send_big(portion, needs.begun.get(entries[0].digest, 0))
        elif missing:
            body = pack(
                (digest, self._small(portion, digest, size)) for digest, size in sizes.items() if digest in missing
            )
            self._uploads.add_pack(self._name, self._session, body)
            self._tell(portion, total_bytes)
        portion.kept.clear()

    def _small(self, portion: Portion, digest: str, size: int) -> bytes:
        try:
            data = portion.content(digest, size)
        except OSError:
            data = b""
        if len(data) != size:
            self._refuse_changed()
        return data

    def _send_big(self, portion: Portion, offset: int) -> None:
        digest, size = portion.entries[0].digest, portion.entries[0].size
        with open(portion.place(digest), "rb", opener=_open_file) as file:
            file.seek(offset)
            while offset < size and not self._over:
                data = file.read(min(CHUNK_BYTES, size - offset))
                if not data:
                    self._refuse_changed()
                self._uploads.add_chunk(self._name, self._session, digest, offset, data)
                offset += len(data)
                self._tell(portion, offset)

    def _tell(self, portion: Portion, there_bytes: int) -> None:
        """Of a portion so many bytes are there; after a lost connection they may have been before."""
        self._on_progress(there_bytes - portion.told_bytes)
        portion.told_bytes = there_bytes

    def _refuse_changed(self) -> None:
        self._tree.check_still()
        raise Conflict("A file changed while it was being uploaded.", "Upload again.")


def _open_file(place: str, flags: int) -> int:
    """Neither follows a link, nor waits for a pipe, in the file's place."""
    return os.open(place, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def default_name(path: str) -> str:
    """What an upload of `path` is called unless somebody says otherwise: as the folder or file is."""
    return os.path.basename(os.path.realpath(path) if os.path.isdir(path) else os.path.abspath(path))
