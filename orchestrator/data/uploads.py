"""Uploads: folders and files of a user under `uploads/NAME`. They appear completely or not at all, and never change.

Arriving files are gathered in `store/incoming/NAME`. When all have arrived, the folder is exchanged with the upload that
it replaces, in one step (renameat2 with RENAME_EXCHANGE, if the system has it).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from orchestrator.content import manifest as manifests
from orchestrator.content.files import remove_tree, sizes_below
from orchestrator.content.manifest import Manifest
from orchestrator.content.packs import unpack
from orchestrator.data.blobs import sync_all
from orchestrator.data.incoming import Incoming
from orchestrator.errors import Conflict, DiskFull, InvalidConfig, NotFound, SpellError, UploadLost, is_disk_full
from orchestrator.home import Home
from orchestrator.records.gc import RemovedRecord
from orchestrator.records.uploads import UploadNeeds, UploadRecord, UploadSession, check_name
from orchestrator.spec.run import to_wire
from orchestrator.store.uploads import UploadStore

_log = logging.getLogger(__name__)
_TRASH = ".trash-"  # no upload has such a name
_MARKER = "publishing.json"
_GONE_ON_WITH_S = 3600.0
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # source: renameat2(2)
_libc = ctypes.CDLL(None, use_errno=True)


class Uploads:
    """The uploads of one home.

    Args:
        home: the home.
        store: the records of the uploads.
        check_room: raises DiskFull when the home must not take this many more bytes.
    """

    def __init__(self, home: Home, store: UploadStore, check_room: Callable[[int], None] = lambda _: None) -> None:
        self._home, self.store, self._check_room = home, store, check_room
        self._lock = threading.Lock()
        self._open: dict[str, Incoming] = {}

    def open(self, name: str, size_bytes: int, tree: str, *, replace: bool) -> UploadSession:
        """Begin or continue an upload. Another sender under this name is refused from now on.

        Args:
            size_bytes: the total size of its files.
            tree: the tree of its manifest; may be "" if no upload of this name exists.
            replace: whether it may replace another upload of this name.

        Raises:
            InvalidConfig: when the name is invalid.
            Conflict: when an upload of this name exists, with other content.
            DiskFull: when the missing bytes do not fit on the disk, or the home would exceed its limit.
        """
        check_name(name)
        present = self._present(name)
        if present and tree in ("", present.tree):
            return UploadSession("", present)
        _refuse_present(present, replace=replace)
        folder = self._home.incoming / name
        there = (present.bytes if present else 0) + (_size_of(folder) if folder.exists() else 0)
        self._check_room(max(0, size_bytes - there))  # existing files are counted already
        with self._lock, _translated_errors(name):
            self._open.pop(name, None)
            if folder.exists():
                os.utime(folder)  # `gc` sees that it is in use
            incoming = Incoming(folder, self._home.upload_dir(name), self._manifest(name) if present else None)
            os.utime(folder)
            _check_free(name, folder, size_bytes - incoming.there_bytes)
            self._open[name] = incoming
        return UploadSession(incoming.session)

    def announce(self, name: str, session: str, text: bytes) -> UploadNeeds:
        """Announce some files of an upload, by their manifest as JSON.

        Raises as `manifest.from_json`, `add_pack`, `Incoming.announce`, and DiskFull as `open`."""
        incoming = self._incoming(name, session)
        with _translated_errors(name):
            with incoming.turn:
                manifest = manifests.from_json(text)
            needs = incoming.announce(manifest)
            os.utime(incoming.folder)
            sizes = {entry.digest: entry.size for entry in manifest.entries}
            missing = sizes if needs.missing is None else needs.missing
            _check_free(name, incoming.folder, sum(sizes[digest] for digest in missing) - sum(needs.begun.values()))
        return needs

    def add_pack(self, name: str, session: str, body: bytes) -> None:
        """Store small files. Raises as `unpack`, and Conflict when another client uploads under this name now."""
        incoming = self._incoming(name, session)
        with _translated_errors(name):
            incoming.add(unpack(body))
            os.utime(incoming.folder)

    def add_chunk(self, name: str, session: str, digest: str, offset: int, data: bytes) -> None:
        """Store a part of a big file. Raises as `add_pack` and `Incoming.append`."""
        incoming = self._incoming(name, session)
        with _translated_errors(name):
            incoming.append(digest, offset, data)
            os.utime(incoming.folder)

    def publish(self, name: str, session: str, tree: str, *, replace: bool) -> UploadRecord:
        """Publish an upload whose files have all arrived.

        Args:
            tree: the tree of the manifest of all announced files.

        Raises:
            InvalidConfig: when nothing was announced, or the paths conflict.
            Conflict: when a file is missing, an upload of this name exists by now, or an active run mounts that one.
        """
        incoming = self._incoming(name, session)
        with self._lock, _translated_errors(name):
            _refuse_present(self._present(name), replace=replace)
            with ThreadPoolExecutor(1) as disk:
                brought = disk.submit(sync_all, incoming.folder)  # syncs most of it while it is checked
                manifest = incoming.seal(tree)
                size = sum(entry.size for entry in manifest.entries)
                upload = UploadRecord(name, tree, len(manifest.entries), size, time.time())
                (incoming.folder / "manifest.json").write_text(manifest.to_json())
                marker = {"upload": to_wire(upload), "inode": incoming.tree.stat().st_ino}
                beside = incoming.folder / f"{_MARKER}.new"
                beside.write_text(json.dumps(marker))
                beside.replace(incoming.folder / _MARKER)
                brought.result()
            sync_all(incoming.folder)
            place = self._home.upload_dir(name)
            try:
                self.store.publish(upload, lambda: _exchange(incoming.tree, place))
            except BaseException:  # for example a full disk: the record must match the files
                if os.path.lexists(place) and place.lstat().st_ino == marker["inode"]:
                    _exchange(place, incoming.tree)
                raise
            self._finish(name)
            self._open.pop(name, None)
        return upload

    def _finish(self, name: str) -> None:
        """Clean up after an upload was moved to its path."""
        folder = self._home.incoming / name
        self._home.upload_dir(name).chmod(0o555)
        with contextlib.suppress(FileNotFoundError):  # an earlier server was killed after this step
            (folder / "manifest.json").replace(self._home.upload_manifest(name))
        (folder / _MARKER).unlink()  # from now on the folder holds only the replaced upload
        remove_tree(folder)

    def remove(self, name: str) -> None:
        """Remove an upload, and the incomplete files under its name.

        Raises:
            NotFound: when it does not exist.
            Conflict: when an active run mounts it.
        """
        check_name(name)
        with self._lock, _translated_errors(name):
            place, came = self._home.upload_dir(name), self._home.incoming / name
            if not os.path.lexists(place) and not came.exists() and not self.store.find(name):
                raise NotFound(f"There is no upload {name!r}.", "See them with: spell ls uploads")
            trash = self._home.incoming / f"{_TRASH}{uuid.uuid4().hex}"
            self.store.remove(name, lambda: _move_away(place, trash))
            self._open.pop(name, None)
            self._home.upload_manifest(name).unlink(missing_ok=True)
            remove_tree(trash)
            remove_tree(came)

    def list(self) -> list[UploadRecord]:
        """Return all uploads, by name."""
        return [upload for upload in self.store.list() if self._home.upload_dir(upload.name).is_dir()]

    # -- recovery -----------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Clean up after a server that was killed: record published uploads, and finish removals."""
        for folder in list(self._home.incoming.iterdir()):
            try:
                if folder.name.startswith(_TRASH):
                    remove_tree(folder)
                elif (folder / _MARKER).exists():
                    self._recover(folder)
            except (OSError, SpellError, ValueError, KeyError):  # any error: the server must start
                _log.exception("%s could not be recovered, and stays", folder)

    def _recover(self, folder: Path) -> None:
        marker = json.loads((folder / _MARKER).read_text())
        place = self._home.upload_dir(folder.name)
        if place.is_dir() and place.stat().st_ino == marker["inode"]:
            self.store.record(UploadRecord(**marker["upload"]))
            self._finish(folder.name)
        else:
            (folder / _MARKER).unlink()

    # -- parts --------------------------------------------------------------------------------------------------

    def _present(self, name: str) -> UploadRecord | None:
        """Return the upload of this name, even if it was put there by hand and has no record."""
        place = self._home.upload_dir(name)
        if not os.path.lexists(place):
            return None
        return self.store.find(name) or UploadRecord(name, "", 0, 0, place.lstat().st_mtime)

    def _manifest(self, name: str) -> Manifest | None:
        try:
            return manifests.from_json(self._home.upload_manifest(name).read_bytes())
        except (OSError, InvalidConfig):
            return None

    def _incoming(self, name: str, session: str) -> Incoming:
        found = self._open.get(name)
        if found is None:
            raise UploadLost(f"No upload of {name!r} is running.", "Upload again: only missing files are sent.")
        if found.session != session:
            raise Conflict(f"Another client uploads {name!r} now.", "Choose another name with -n.")
        return found


def gc_partial(home: Home, older_than_s: float, *, dry_run: bool) -> list[RemovedRecord]:
    """Remove incomplete uploads that were not continued for this time, and at least for an hour."""
    found = []
    for folder in sorted(home.incoming.iterdir()):
        unused_s = time.time() - folder.stat().st_mtime
        if unused_s >= max(older_than_s, _GONE_ON_WITH_S) and not folder.name.startswith(_TRASH):
            found.append(RemovedRecord(f"incomplete upload {folder.name}", _size_of(folder), "upload"))
            if not dry_run:
                trash = (
                    home.incoming / f"{_TRASH}{uuid.uuid4().hex}"
                )  # in one step, so that a new upload does not find half of it
                folder.rename(trash)
                remove_tree(trash)
    return found


def _size_of(folder: Path) -> int:
    return sum(status.st_blocks * 512 for status in sizes_below(folder))


def _refuse_present(present: UploadRecord | None, *, replace: bool) -> None:
    if present and not replace:
        raise Conflict(
            f"An upload {present.name!r} already exists, with other content.",
            "Replace it with -f, or choose another name with -n.",
        )


def _check_free(name: str, folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise DiskFull(
            f"There is no room for {name!r}: {wanted >> 20} MiB more are needed, and {free >> 20} MiB are free.",
            "Free some space: spell gc, spell rm uploads/…",
        )


@contextmanager
def _translated_errors(name: str) -> Iterator[None]:
    """Raise errors of the system as errors of ours."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            words = "Free some space, then upload again: only what is missing is sent."
            raise DiskFull(f"The disk is full: upload {name!r} could not be stored.", words) from error
        raise SpellError(f"Upload {name!r} could not be stored: {error.filename}: {error.strerror}.") from error


def _exchange(new: Path, place: Path) -> None:
    """Exchange two folders; or rename the new one, if the other does not exist."""
    if not os.path.lexists(place):
        os.rename(new, place)
        return
    if place.is_dir() and not place.is_symlink():
        place.chmod(0o755)  # else only root could move it
    renameat2 = getattr(_libc, "renameat2", None)
    paths = os.fsencode(new), os.fsencode(place)
    if renameat2 and renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return
    aside = new.with_name("replaced")  # macOS, or a file system without the exchange
    os.rename(place, aside)
    os.rename(new, place)


def _move_away(place: Path, trash: Path) -> None:
    if os.path.lexists(place):
        if not place.is_symlink():
            place.chmod(0o755)
        os.rename(place, trash)
