"""Uploads: folders and files that a person keeps under `uploads/NAME`, whole or not at all, and never changed there.

What comes in is gathered in `store/incoming/NAME`; when all of it is there it changes places with the upload that it
replaces, in one step (renameat2 with RENAME_EXCHANGE, where there is that).
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
from orchestrator.records.gc import CollectedRecord
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
        store: its records of them.
        check_room: raises DiskFull where so many more bytes are too much for the home.
    """

    def __init__(self, home: Home, store: UploadStore, check_room: Callable[[int], None] = lambda _: None) -> None:
        self._home, self.store, self._check_room = home, store, check_room
        self._lock = threading.Lock()
        self._open: dict[str, Incoming] = {}

    def open(self, name: str, size_bytes: int, tree: str, *, replace: bool) -> UploadSession:
        """Begin an upload, or go on with one. Whoever else sends under this name is refused from now on.

        Args:
            size_bytes: how big its files are together.
            tree: of its manifest; may be left out ("") where there is no upload of this name.
            replace: whether it may take the place of another one of this name.

        Raises:
            InvalidConfig: a bad name.
            Conflict: there is an upload of this name, with other content.
            DiskFull: there is no room for what is missing, or the home would take more than it may.
        """
        check_name(name)
        present = self._present(name)
        if present and tree in ("", present.tree):
            return UploadSession("", present)
        _refuse_present(present, replace=replace)
        folder = self._home.incoming / name
        there = (present.bytes if present else 0) + (_size_of(folder) if folder.exists() else 0)
        self._check_room(max(0, size_bytes - there))  # what is there is counted already, and goes or is taken
        with self._lock, _told(name):
            self._open.pop(name, None)
            if folder.exists():
                os.utime(folder)  # from now on somebody goes on with it
            incoming = Incoming(folder, self._home.upload_dir(name), self._manifest(name) if present else None)
            os.utime(folder)
            _check_free(name, folder, size_bytes - incoming.there_bytes)
            self._open[name] = incoming
        return UploadSession(incoming.session)

    def announce(self, name: str, session: str, text: bytes) -> UploadNeeds:
        """Hear of some files of an upload, by their manifest as JSON.

        Raises as `manifest.from_json`, `add_pack`, `Incoming.announce`, and DiskFull as `open`."""
        incoming = self._incoming(name, session)
        with _told(name):
            with incoming.turn:
                manifest = manifests.from_json(text)
            needs = incoming.announce(manifest)
            os.utime(incoming.folder)
            sizes = {entry.digest: entry.size for entry in manifest.entries}
            missing = sizes if needs.missing is None else needs.missing
            _check_free(name, incoming.folder, sum(sizes[digest] for digest in missing) - sum(needs.begun.values()))
        return needs

    def add_pack(self, name: str, session: str, body: bytes) -> None:
        """Keep small files. Raises as `unpack`, and Conflict when somebody else uploads under this name by now."""
        incoming = self._incoming(name, session)
        with _told(name):
            incoming.add(unpack(body))
            os.utime(incoming.folder)

    def add_chunk(self, name: str, session: str, digest: str, offset: int, data: bytes) -> None:
        """Keep a part of a big file. Raises as `add_pack`, and as `Incoming.append`."""
        incoming = self._incoming(name, session)
        with _told(name):
            incoming.append(digest, offset, data)
            os.utime(incoming.folder)

    def publish(self, name: str, session: str, tree: str, *, replace: bool) -> UploadRecord:
        """Let an upload appear, all of which is there.

        Args:
            tree: of the manifest of all that was announced.

        Raises:
            InvalidConfig: nothing was announced, or what was cannot be together.
            Conflict: something is missing; there is one of this name meanwhile; an active run mounts that one.
        """
        incoming = self._incoming(name, session)
        with self._lock, _told(name):
            _refuse_present(self._present(name), replace=replace)
            with ThreadPoolExecutor(1) as disk:
                brought = disk.submit(sync_all, incoming.folder)  # most of it, while it is looked through
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
            except BaseException:  # the disk is full, say: what was recorded is what lies there
                if os.path.lexists(place) and place.lstat().st_ino == marker["inode"]:
                    _exchange(place, incoming.tree)
                raise
            self._finish(name)
            self._open.pop(name, None)
        return upload

    def _finish(self, name: str) -> None:
        """What is left to do once an upload is where it belongs."""
        folder = self._home.incoming / name
        self._home.upload_dir(name).chmod(0o555)
        with contextlib.suppress(FileNotFoundError):  # a server was killed right after this
            (folder / "manifest.json").replace(self._home.upload_manifest(name))
        (folder / _MARKER).unlink()  # from now on it is only what was replaced
        remove_tree(folder)

    def remove(self, name: str) -> None:
        """Remove an upload, and what came in of another one under its name.

        Raises:
            NotFound: there is none of this name.
            Conflict: an active run mounts it.
        """
        check_name(name)
        with self._lock, _told(name):
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
        """All uploads, by name."""
        return [upload for upload in self.store.list() if self._home.upload_dir(upload.name).is_dir()]

    # -- what is left -------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """After a server that was killed: finish what was published but not written down, remove what was to go."""
        for folder in list(self._home.incoming.iterdir()):
            try:
                if folder.name.startswith(_TRASH):
                    remove_tree(folder)
                elif (folder / _MARKER).exists():
                    self._recover(folder)
            except (OSError, SpellError, ValueError, KeyError):  # whatever is wrong with it, the server starts
                _log.exception("%s stays", folder)

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
        """The upload of this name; one that nothing is known of, put there by hand, too."""
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
            raise UploadLost(f"Nobody uploads {name!r} now.", "Upload again: only what is missing is sent.")
        if found.session != session:
            raise Conflict(f"Somebody else uploads {name!r} now.", "Choose another name with -n.")
        return found


def collect_partial(home: Home, older_than_s: float, *, dry_run: bool) -> list[CollectedRecord]:
    """Remove what came in of uploads that nobody went on with for so long, and never for less than an hour."""
    found = []
    for folder in sorted(home.incoming.iterdir()):
        unused_s = time.time() - folder.stat().st_mtime
        if unused_s >= max(older_than_s, _GONE_ON_WITH_S) and not folder.name.startswith(_TRASH):
            found.append(CollectedRecord(f"what came of upload {folder.name}", _size_of(folder), "upload"))
            if not dry_run:
                trash = (
                    home.incoming / f"{_TRASH}{uuid.uuid4().hex}"
                )  # at once: who begins now does not meet half of it
                folder.rename(trash)
                remove_tree(trash)
    return found


def _size_of(folder: Path) -> int:
    return sum(status.st_blocks * 512 for status in sizes_below(folder))


def _refuse_present(present: UploadRecord | None, *, replace: bool) -> None:
    if present and not replace:
        raise Conflict(
            f"There is an upload {present.name!r} already, with other content.",
            "Replace it with -f, or choose another name with -n.",
        )


def _check_free(name: str, folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise DiskFull(
            f"There is no room for {name!r}: {wanted >> 20} MiB are to come, {free >> 20} MiB are free.",
            "Make some: spell gc, spell rm uploads/…",
        )


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What the system refuses, as errors of ours."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            words = "Free some space, then upload again: only what is missing is sent."
            raise DiskFull(f"The disk is full: upload {name!r} could not be stored.", words) from error
        raise SpellError(f"Upload {name!r} could not be stored: {error.filename}: {error.strerror}.") from error


def _exchange(new: Path, place: Path) -> None:
    """Put a folder in the place of another one, which is then where the first was; or of nothing."""
    if not os.path.lexists(place):
        os.rename(new, place)
        return
    if place.is_dir() and not place.is_symlink():
        place.chmod(0o755)  # else only root may move it
    renameat2 = getattr(_libc, "renameat2", None)
    paths = os.fsencode(new), os.fsencode(place)
    if renameat2 and renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return
    aside = new.with_name("replaced")  # macOS, or a file system that cannot
    os.rename(place, aside)
    os.rename(new, place)


def _move_away(place: Path, trash: Path) -> None:
    if os.path.lexists(place):
        if not place.is_symlink():
            place.chmod(0o755)
        os.rename(place, trash)
