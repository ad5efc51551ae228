"""Lets identical outputs share their bytes on the disk: by extents if the file system can, else by hard links.

Extents: the kernel compares two files and lets them share equal bytes (`FIDEDUPERANGE`, Btrfs and XFS); name, mode and
times stay. Otherwise the new file is replaced by a hard link to the earlier file, in one rename, so readers, mounts and
removals of either file always find it complete. Folders of outputs are sealed, and opened only for that moment; a record
names the open folder, in case the server is killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchestrator.content.manifest import actual
from orchestrator.errors import SpellError
from orchestrator.home import Home
from orchestrator.records.files import ArtifactRecord
from orchestrator.store import Store

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20
_WRITE_BITS = 0o222
_SEALED_FOLDER = 0o555
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK

# struct file_dedupe_range with one file_dedupe_range_info; ioctl_fideduperange(2)
_FIDEDUPERANGE = 0xC0189436
_RANGE = struct.Struct("=QQHHI qQQiI")
_RANGE_BYTES = 16 << 20  # Btrfs refuses more at once
_CANNOT = frozenset(
    {errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EXDEV, errno.ENOSYS, errno.EACCES}
)


class Dedup:
    """Lets new outputs share the bytes of earlier ones. For one thread.

    Args:
        cancelled: called meanwhile; nothing is replaced if it returns True.
    """

    def __init__(self, store: Store, home: Home, cancelled: Callable[[], bool]) -> None:
        self._store, self._home, self._cancelled = store, home, cancelled
        self._new, self._opened = home.dedup / "new", home.dedup / "opened"

    def finish(self) -> None:
        """Clean up after a server that was killed meanwhile: both files are complete, but a folder may still be open."""
        self._new.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            place = os.readlink(self._opened)
            with self._store.gc.held(int(place.split("/")[0])) as is_kept:
                if is_kept:
                    with contextlib.suppress(OSError), _open(self._home.runs / place) as folder:
                        os.fchmod(folder, _SEALED_FOLDER)
            self._opened.unlink()

    def share(self, new: ArtifactRecord, sha256: str, others: Sequence[ArtifactRecord] = ()) -> bool:
        """Let an output share the bytes of an identical one. It stays unchanged if that is not possible.

        Args:
            sha256: its hash. Bytes are compared nevertheless, as a file may have changed since.
            others: outputs with this hash that the store does not have yet.

        Returns:
            Whether they are shared now.
        """
        try:
            for other in (*others, *self._store.same_artifacts(new, sha256)):
                with contextlib.suppress(OSError):  # removed meanwhile, too many hard links, another disk, …
                    if self._share(new, other):
                        return True
        except SpellError as error:  # its hash is recorded nevertheless
            _log.warning("run %d: %s is not shared: %s", new.run, new.path, error.message)
        return False

    def _share(self, new: ArtifactRecord, other: ArtifactRecord) -> bool:
        place, earlier = self._place(new), self._place(other)
        with _open(place) as mine, _open(earlier) as theirs:
            before, source = os.fstat(mine), os.fstat(theirs)
            if not _may_share(before, source, new.size):
                return False
            if _is_same_file(before, source) or self._share_extents(theirs, mine, new.size):
                return True
            if not self._is_equal(mine, theirs):
                return False
            os.link(earlier, self._new, follow_symlinks=False)
            try:
                if not _is_unchanged(self._new.lstat(), source):
                    return False
                with self._store.gc.held(new.run) as is_kept:
                    return is_kept and self._replace(new, before)
            finally:
                self._new.unlink(missing_ok=True)

    def _place(self, item: ArtifactRecord) -> Path:
        return self._home.run_dir(item.run) / actual(item.path)

    def _share_extents(self, source: int, target: int, size: int) -> bool:
        done = 0
        while done < size and not self._cancelled():
            asked = bytearray(_RANGE.pack(done, min(_RANGE_BYTES, size - done), 1, 0, 0, target, done, 0, 0, 0))
            try:
                fcntl.ioctl(source, _FIDEDUPERANGE, asked)
            except OSError as error:
                if error.errno in _CANNOT:
                    return False
                raise
            shared, status = _RANGE.unpack(asked)[7:9]
            if status or not shared:  # not supported by this file system, or not equal
                return False
            done += shared
        return done == size

    def _is_equal(self, one: int, two: int) -> bool:
        position = 0
        while not self._cancelled():
            chunk = os.pread(one, _CHUNK_BYTES, position)
            if chunk != os.pread(two, len(chunk) or 1, position):
                return False
            if not chunk:
                return True
            position += len(chunk)
        return False

    def _replace(self, new: ArtifactRecord, before: os.stat_result) -> bool:
        """Rename the file in our folder over an output. Must be quick, as the store is locked."""
        place = self._place(new)
        with _open(place.parent) as folder:
            if not _is_unchanged(os.stat(place.name, dir_fd=folder, follow_symlinks=False), before):
                return False
            mode = stat.S_IMODE(os.fstat(folder).st_mode)
            if mode & stat.S_IWUSR:
                os.rename(self._new, place.name, dst_dir_fd=folder)
                return True
            os.symlink(place.parent.relative_to(self._home.runs), self._opened)
            try:
                os.fchmod(folder, mode | stat.S_IWUSR)
                os.rename(self._new, place.name, dst_dir_fd=folder)
            finally:
                os.fchmod(folder, mode)
                self._opened.unlink()
        return True


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _may_share(one: os.stat_result, two: os.stat_result, size: int) -> bool:
    """Whether these are sealed files that differ at most in their bytes."""

    def kind(status: os.stat_result) -> tuple[int, ...]:
        return status.st_dev, status.st_mode, status.st_uid, status.st_gid, status.st_size

    return (
        kind(one) == kind(two) and stat.S_ISREG(one.st_mode) and not one.st_mode & _WRITE_BITS and one.st_size == size
    )


def _is_same_file(one: os.stat_result, two: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)


def _is_unchanged(now: os.stat_result, before: os.stat_result) -> bool:
    return (
        _is_same_file(now, before) and _may_share(now, before, before.st_size) and now.st_mtime_ns == before.st_mtime_ns
    )
