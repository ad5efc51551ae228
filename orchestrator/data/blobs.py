"""Content-addressed files: each blob of the code snapshots once, and the manifests."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from orchestrator.content import manifest as manifests
from orchestrator.content.manifest import EXECUTABLE, LINK, Entry, Manifest
from orchestrator.content.packs import MOST_BYTES, unpack
from orchestrator.errors import CodeFailed, DiskFull, InvalidConfig, SnapshotMissing, is_disk_full
from orchestrator.home import Home

_CHUNK_BYTES = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)
_USED_S = 600.0
ROOM_CURE = "Make room: spell archive RUN…, then spell gc --older-than 0; or spell rm uploads/NAME."
_FEW = 4  # files; for more, the whole file system is synced at once


class BlobStore:
    """Blobs and trees of one home. Files appear completely: they are written under another name, then renamed."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.RLock()

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Return the digests whose blobs are missing. The others count as used now, so `gc` keeps them for a while."""
        with self._lock:
            return sorted(digest for digest in digests if not _is_there(self._home.blob(digest)))

    def has(self, tree: str, diff: str) -> bool:
        """Whether a snapshot exists, with its difference to the commit if it has one; then it counts as used now."""
        with self._lock:
            return _is_there(self._home.tree(tree)) and (not diff or _is_there(self._home.blob(diff)))

    def remove(self, path: Path, before: float) -> int | None:
        """Remove a blob or manifest that was not used since. Returns the bytes that this freed; None when it stays.

        Args:
            path: the path of the blob or manifest.
            before: seconds since the epoch.
        """
        with self._lock:
            size_bytes = unused_bytes(path, before)
            if size_bytes is not None:
                path.unlink(missing_ok=True)
            return size_bytes

    def put(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Store a blob.

        Raises:
            InvalidConfig: when the content does not hash to `digest`.
            DiskFull: when the disk is full.
        """
        hashing = hashlib.sha256()
        target = self._home.blob(digest)
        beside = self._home.blobs / f"incoming-{uuid.uuid4().hex}"
        try:
            with beside.open("wb") as file:
                for chunk in chunks:
                    hashing.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if hashing.hexdigest() != digest:
                raise InvalidConfig("A file of the snapshot changed while it was sent.", "Cast again.")
            target.parent.mkdir(exist_ok=True)
            with self._lock:
                beside.rename(target)
        except OSError as error:
            raise _not_stored(error, self._home.store) from error
        finally:
            beside.unlink(missing_ok=True)

    def put_pack(self, pack: bytes) -> None:
        """Store the blobs of a pack (see `orchestrator.content.packs`), and sync the disk once.

        Raises:
            InvalidConfig, Conflict: when it is too big, cannot be read, or a blob does not hash to its digest.
            DiskFull: when the disk is full.
        """
        if len(pack) > MOST_BYTES:
            raise InvalidConfig("A pack is too big.")
        beside = self._home.blobs / f"incoming-{uuid.uuid4().hex}"
        written: dict[str, Path] = {}
        try:
            for digest, data in unpack(pack):
                path = written.setdefault(digest, beside.with_name(f"{beside.name}-{len(written)}"))
                path.write_bytes(data)
            if len(written) > _FEW:
                sync_all(self._home.blobs)
            else:  # does not wait for what other programs have just written
                for path in written.values():
                    _sync(path)
            with self._lock:
                for digest, path in written.items():
                    target = self._home.blob(digest)
                    target.parent.mkdir(exist_ok=True)
                    path.rename(target)
        except OSError as error:
            raise _not_stored(error, self._home.store) from error
        finally:
            for path in written.values():
                path.unlink(missing_ok=True)

    def put_tree(self, manifest: Manifest, pack: bytes = b"") -> list[str]:
        """Store a manifest if all its blobs exist. Returns the digests of the missing blobs.

        Args:
            pack: blobs that are stored first.

        Raises:
            InvalidConfig, Conflict, DiskFull: as `put_pack`.
        """
        if pack:
            self.put_pack(pack)
        with self._lock:
            return self._put_tree(manifest)

    def _put_tree(self, manifest: Manifest) -> list[str]:
        missing = self.missing(manifest.digests)
        if not missing:
            path = self._home.tree(manifest.tree)
            beside = path.with_name(f"incoming-{uuid.uuid4().hex}")
            try:
                with beside.open("w") as file:
                    file.write(manifest.to_json())
                    file.flush()
                    os.fsync(file.fileno())
                for folder in {self._home.blob(digest).parent for digest in manifest.digests}:
                    _sync(folder)
                beside.rename(path)
                _sync(path.parent)
            except OSError as error:
                raise _not_stored(error, self._home.store) from error
        return missing

    def tree(self, tree: str) -> Manifest:
        """Return the manifest of a snapshot.

        Raises:
            SnapshotMissing: when it does not exist.
        """
        try:
            found = manifests.from_json(self._home.tree(tree).read_bytes())
        except FileNotFoundError:
            raise SnapshotMissing(f"The server does not have snapshot {tree[:12]}.") from None
        except InvalidConfig:
            found = None
        if found is None or found.tree != tree:
            self._home.tree(tree).unlink(missing_ok=True)  # the next cast sends it again
            raise CodeFailed(f"the manifest of snapshot {tree[:12]} is damaged; cast again")
        return found

    def unpack(self, manifest: Manifest, root: Path) -> None:
        """Write the snapshot below `root`, which must be empty. All files get the time of the tree (`manifests.time_of`).

        Raises:
            CodeFailed: when a blob is missing or does not hash to its digest.
            DiskFull: when the disk is full.
        """
        made: set[str] = set()
        time_ns = manifests.time_of(manifest.tree)
        for entry in manifest.entries:
            folder, _, _ = entry.path.rpartition("/")
            if folder not in made:
                (root / folder).mkdir(parents=True, exist_ok=True)
                made.add(folder)
            try:
                self._unpack(entry, root / entry.path)
                os.utime(root / entry.path, ns=(time_ns, time_ns), follow_symlinks=False)
            except FileNotFoundError as error:
                self._forget(manifest)
                raise CodeFailed(f"the content of {entry.path!r} is missing from the store") from error
            except OSError as error:
                raise _disk_error(error, f"{entry.path!r} could not be written") from error
            except CodeFailed:
                self._forget(manifest)
                raise

    def _forget(self, manifest: Manifest) -> None:
        """Remove the manifest, so that the next cast sends the missing blobs."""
        self._home.tree(manifest.tree).unlink(missing_ok=True)

    def _unpack(self, entry: Entry, path: Path) -> None:
        source = self._home.blob(entry.digest)
        if entry.mode == LINK:
            target = source.read_bytes()
            digest = hashlib.sha256(target).hexdigest()
            os.symlink(target, os.fsencode(path))
        else:
            hashing = hashlib.sha256()
            with source.open("rb") as blob, path.open("xb") as file:
                while chunk := blob.read(_CHUNK_BYTES):
                    hashing.update(chunk)
                    file.write(chunk)
            digest = hashing.hexdigest()
            path.chmod(0o755 if entry.mode == EXECUTABLE else 0o644)
        if digest != entry.digest:
            source.unlink(missing_ok=True)
            raise CodeFailed(f"the content of {entry.path!r} is damaged in the store; cast again")

    def read(self, digest: str) -> bytes:
        """Return a whole blob; only for small ones, such as a diff."""
        return self._home.blob(digest).read_bytes()

    def sweep(self) -> None:
        """Remove files that a killed server left incomplete."""
        for folder in (self._home.blobs, self._home.trees):
            for path in folder.glob("incoming-*"):
                path.unlink(missing_ok=True)


def unused_bytes(path: Path, before: float) -> int | None:
    """Return the disk space of a file that was not used since `before`; None for any other."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_blocks * 512 if info.st_mtime <= before else None


def _is_there(path: Path) -> bool:
    """Whether a file exists; then its time is set, to within `_USED_S`, as it is used now."""
    try:
        is_fresh = abs(time.time() - path.stat().st_mtime) < _USED_S
    except OSError:
        return False
    if not is_fresh:
        with contextlib.suppress(OSError):  # it belongs to another user
            os.utime(path)
    return True


def free_bytes(path: Path) -> int:
    """Return the free space on the disk that holds `path`."""
    return shutil.disk_usage(path).free


def _sync(path: Path) -> None:
    """Sync a file, or the names in a folder, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _not_stored(error: OSError, folder: Path) -> Exception:
    if is_disk_full(error):
        words = f"the code could not be stored: the disk of {folder} is full, {free_bytes(folder) >> 10} KiB are free"
        return DiskFull(words, ROOM_CURE)
    return _disk_error(error, "the code could not be stored")


def _disk_error(error: OSError, what: str) -> Exception:
    if is_disk_full(error):
        return DiskFull(what)
    return CodeFailed(f"{what}: {error.strerror}")


def sync_all(folder: Path) -> None:
    """Sync the file system that holds a folder, which is faster than syncing many files one by one."""
    syncfs = getattr(_libc, "syncfs", None)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
