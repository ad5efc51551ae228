"""Sends an upload portion by portion. Only files that the server lacks are sent, and an interrupted upload continues."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from orchestrator.capture.datatree import DataTree, Portion
from orchestrator.client.upload_steps import UploadSteps
from orchestrator.content.manifest import Manifest
from orchestrator.content.packs import pack
from orchestrator.errors import Conflict, ServerUnavailable, UploadLost
from orchestrator.records.uploads import UploadRecord

CHUNK_BYTES = 8 << 20
_SENDERS = 4  # one reads while the others wait for the server
_TRIES = 3
_KEPT_BYTES = 64 << 20

_Progress = Callable[[int], object]


def upload(
    steps: UploadSteps,
    name: str,
    tree: DataTree,
    *,
    replace: bool = False,
    on_progress: _Progress = lambda _bytes: None,
) -> UploadRecord:
    """Upload a tree as `uploads/NAME`. The upload continues after a restart of the server.

    Args:
        steps: makes the requests.
        name: of the upload.
        tree: of the files.
        replace: whether to replace an upload of the same name.
        on_progress: called from any thread with the number of bytes that have arrived since the last call.

    Raises:
        Conflict: if a file changed during the upload, or if an upload of the same name has other content.
        SpellError: of the class that the server raised.
    """
    sender = _Sender(steps, name, tree, on_progress)
    for left in reversed(range(_TRIES)):
        try:
            opened = steps.open(name, tree.total_bytes, replace=replace)
            if opened.upload:  # read all files first: this upload may have the same content
                sender.read()
                opened = steps.open(name, tree.total_bytes, tree.manifest.tree, replace=replace)
            if opened.upload:
                return opened.upload
            sender.send(opened.session)
            return steps.publish(name, opened.session, tree.manifest.tree, replace=replace)
        except (ServerUnavailable, UploadLost):
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


class _Sender:
    """Reads a tree and sends missing files, several portions at once."""

    def __init__(self, steps: UploadSteps, name: str, tree: DataTree, on_progress: _Progress) -> None:
        self._steps, self._name, self._tree, self._on_progress = steps, name, tree, on_progress
        self._session = ""
        self._kept_bytes = 0
        self._over = False

    def read(self) -> None:
        """Hash all files and send nothing."""
        self._each(self._read)

    def send(self, session: str) -> None:
        """Send all missing files."""
        self._session = session
        self._each(self._send)

    def _each(self, action: Callable[[Portion], object]) -> None:
        """Act on all portions, and raise the first error."""
        self._over = False
        with ThreadPoolExecutor(_SENDERS) as pool:
            try:
                jobs = [pool.submit(action, portion) for portion in self._tree.portions]
                for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                    job.result()
            except BaseException:
                self._over = True  # makes the threads end within a chunk after ^C
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
        needs = self._steps.announce(self._name, self._session, Manifest(tuple(entries)).to_json())
        sizes = {entry.digest: entry.size for entry in entries}
        missing = sizes.keys() if needs.missing is None else set(needs.missing)
        total_bytes = sum(entry.size for entry in entries)
        lacking_bytes = sum(entry.size for entry in entries if entry.digest in missing)
        self._report(portion, total_bytes - lacking_bytes + sum(needs.begun.values()))
        if portion.is_big and missing:
            self._send_big(portion, needs.begun.get(entries[0].digest, 0))
        elif missing:
            body = pack(
                (digest, self._small(portion, digest, size)) for digest, size in sizes.items() if digest in missing
            )
            self._steps.add_pack(self._name, self._session, body)
            self._report(portion, total_bytes)
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
                self._steps.add_chunk(self._name, self._session, digest, offset, data)
                offset += len(data)
                self._report(portion, offset)

    def _report(self, portion: Portion, arrived_bytes: int) -> None:
        """Report the progress of a portion. Bytes that are sent again after a lost connection are not reported twice."""
        self._on_progress(arrived_bytes - portion.told_bytes)
        portion.told_bytes = arrived_bytes

    def _refuse_changed(self) -> None:
        self._tree.check_still()
        raise Conflict("A file changed while it was being uploaded.", "Upload again.")


def _open_file(place: str, flags: int) -> int:
    """Open a file, and fail if a symbolic link or a pipe has taken its place."""
    return os.open(place, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def default_name(path: str) -> str:
    """Return the default name of an upload of `path`: the name of the folder or file."""
    return os.path.basename(os.path.realpath(path) if os.path.isdir(path) else os.path.abspath(path))
