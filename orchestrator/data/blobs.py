"""Content-addressed files: the snapshots of the code, each blob once, and their manifests."""

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
_FEW = 4  # files; of more, all are written to the disk at once


class BlobStore:
    """Blobs and trees of one home. Files appear whole: written beside, then renamed."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.RLock()

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those of the digests that are not here. The others are used now: nobody collects them for a while."""
        with self._lock:
            return sorted(digest for digest in digests if not _is_there(self._home.blob(digest)))

    def has(self, tree: str, diff: str) -> bool:
        """Whether a snapshot is here, with the difference to its commit where it has one; then it is used now."""
        with self._lock:
            return _is_there(self._home.tree(tree)) and (not diff or _is_there(self._home.blob(diff)))

    def remove(self, path: Path, before: float) -> int | None:
        """Remove a blob or manifest that nobody has used since; the room that gave back, in bytes; None when it stays.

        Args:
            path: of the blob or manifest.
            before: seconds since the epoch.
        """
        with self._lock:
            size_bytes = unused_bytes(path, before)
            if size_bytes is not None:
                path.unlink(missing_ok=True)
            return size_bytes

    def put(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Keep a blob.

        Raises:
            InvalidConfig: when the content does not hash to `digest`.
            DiskFull: when there is no space.
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
            raise _disk_error(error, "the code could not be stored") from error
        finally:
            beside.unlink(missing_ok=True)

    def put_pack(self, pack: bytes) -> None:
        """Keep the blobs of a pack (see `orchestrator.content.packs`); the disk is waited for once.

        Raises:
            InvalidConfig, Conflict: when it is too big, cannot be read, or a blob does not hash to its digest.
            DiskFull: when there is no space.
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
            else:  # what others have just written to this disk need not be waited for
                for path in written.values():
                    _sync(path)
            with self._lock:
                for digest, path in written.items():
                    target = self._home.blob(digest)
                    target.parent.mkdir(exist_ok=True)
                    path.rename(target)
        except OSError as error:
            raise _disk_error(error, "the code could not be stored") from error
        finally:
            for path in written.values():
                path.unlink(missing_ok=True)

    def put_tree(self, manifest: Manifest, pack: bytes = b"") -> list[str]:
        """Keep a manifest when all its blobs are here; else the digests of those that are missing.

        Args:
            pack: blobs that are kept first.

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
                raise _disk_error(error, "the code could not be stored") from error
        return missing

    def tree(self, tree: str) -> Manifest:
        """The manifest of a snapshot.

        Raises:
            SnapshotMissing: when it is not here.
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

    def unpack(self, manifest: Manifest, root: Path, mtime_ns: int) -> None:
        """Write the snapshot below `root`, which must be empty; every file gets this modification time.

        Raises:
            CodeFailed: when a blob is missing or does not hash to its digest.
            DiskFull: when there is no space.
        """
        made: set[str] = set()
        for entry in manifest.entries:
            folder, _, _ = entry.path.rpartition("/")
            if folder not in made:
                (root / folder).mkdir(parents=True, exist_ok=True)
                made.add(folder)
            try:
                self._unpack(entry, root / entry.path)
                os.utime(root / entry.path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
            except FileNotFoundError as error:
                self._forget(manifest)
                raise CodeFailed(f"the content of {entry.path!r} is missing from the store") from error
            except OSError as error:
                raise _disk_error(error, f"{entry.path!r} could not be written") from error
            except CodeFailed:
                self._forget(manifest)
                raise

    def _forget(self, manifest: Manifest) -> None:
        """The next cast sends what is missing."""
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
        """A whole blob; for small ones, such as a diff."""
        return self._home.blob(digest).read_bytes()

    def sweep(self) -> None:
        """Remove what a killed server left half written."""
        for folder in (self._home.blobs, self._home.trees):
            for path in folder.glob("incoming-*"):
                path.unlink(missing_ok=True)


def unused_bytes(path: Path, before: float) -> int | None:
    """The room that a file takes which nobody has used since `before`; None for any other."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_blocks * 512 if info.st_mtime <= before else None


def _is_there(path: Path) -> bool:
    """Whether a file is there; then its time says that it is used now, give or take `_USED_S`."""
    try:
        is_fresh = abs(time.time() - path.stat().st_mtime) < _USED_S
    except OSError:
        return False
    if not is_fresh:
        with contextlib.suppress(OSError):  # another person's
            os.utime(path)
    return True


def free_bytes(path: Path) -> int:
    """Free space on the disk that holds `path`."""
    return shutil.disk_usage(path).free


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _disk_error(error: OSError, what: str) -> Exception:
    if is_disk_full(error):
        return DiskFull(what)
    return CodeFailed(f"{what}: {error.strerror}")


def sync_all(folder: Path) -> None:
    """Wait until the file system that holds a folder is on the disk: faster than each of many files by itself."""
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
