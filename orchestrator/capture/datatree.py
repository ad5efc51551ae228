"""A folder or a file to upload: its files, and the digest of each."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from orchestrator.capture.blobs import file_chunks
from orchestrator.content import manifest as manifests
from orchestrator.content.links import found_target, said_target
from orchestrator.content.manifest import Entry, Manifest, special_kind
from orchestrator.content.packs import SMALL_BYTES, grouped
from orchestrator.errors import Conflict, InvalidConfig, NotFound, SpellError

_NAMED = 3
_FIRST_TOGETHER = 250  # a small first portion, so that the server starts to work soon

_Looked = tuple[bytes, bytes, os.stat_result]  # path relative to the root, absolute path, status


@dataclass(slots=True)
class Found:
    """The contents of a folder.

    Attributes:
        files: regular files and links.
        warnings: names of files that are left out, and why.
    """

    files: list[_Looked] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        """The total size of the files in bytes."""
        return sum(status.st_size for _, _, status in self.files)


@dataclass(slots=True)
class Portion:
    """Files that are hashed and sent together: many small ones, or one big one.

    Attributes:
        looked: the files as they were found.
        entries: their entries, in the same order; empty before they are hashed.
        kept: the content of small files by digest, so that they are read only once.
        told_bytes: the size that was reported to the caller for these files.
    """

    looked: list[_Looked]
    entries: list[Entry] = field(default_factory=list)
    kept: dict[str, bytes] = field(default_factory=dict)
    told_bytes: int = 0

    @property
    def is_big(self) -> bool:
        """Whether it is one big file."""
        return self.looked[0][2].st_size > SMALL_BYTES

    def place(self, digest: str) -> bytes:
        """Return the path of the file with this digest."""
        return next(
            place for entry, (_, place, _) in zip(self.entries, self.looked, strict=True) if entry.digest == digest
        )

    def content(self, digest: str, size: int) -> bytes:
        """Return the bytes of a small file, or the text of a link."""
        if (data := self.kept.get(digest)) is not None:
            return data
        place = self.place(digest)
        return _read(place, size, is_link=os.path.islink(place))[0]


class DataTree:
    """The files to upload. They are hashed on demand.

    Args:
        found: the files.
        on_progress: called with the number of bytes read since the last call, from any thread.

    Attributes:
        total_bytes: the total size of the files in bytes.
        portions: the files, in their order on the disk.
    """

    def __init__(self, found: Found, on_progress: Callable[[int], object] = lambda _bytes: None) -> None:
        self._looked, self._on_progress = found.files, on_progress
        self._turn = threading.Lock()
        self.total_bytes = found.total_bytes
        ordered = sorted(found.files, key=lambda looked: looked[2].st_ino)
        small = ((looked, looked[2].st_size) for looked in ordered if looked[2].st_size <= SMALL_BYTES)
        self.portions = [Portion([looked]) for looked in ordered if looked[2].st_size > SMALL_BYTES]
        self.portions += [Portion(group) for group in grouped(small, first=_FIRST_TOGETHER)]

    @functools.cached_property
    def manifest(self) -> Manifest:
        """Return the manifest, when all files were read; paths have the form of `manifest.printable`."""
        return manifests.joined(entry for portion in self.portions for entry in portion.entries)

    def read(self, portion: Portion, is_over: Callable[[], bool] = lambda: False) -> None:
        """Hash the files of a portion, if this was not done yet.

        Args:
            is_over: called from time to time; True gives up a big file, which gets no entry.

        Raises:
            SpellError: when a file cannot be read.
            Conflict: when a file has changed since it was found: one moment of the folder is uploaded.
        """
        if portion.entries:
            return
        if portion.is_big:
            entry = _big_entry(*portion.looked[0], self._on_progress, is_over)
            portion.entries = [entry] if entry else []
            return
        with self._turn:  # two threads at once would mostly wait for each other
            portion.entries = [_small_entry(*looked, portion.kept) for looked in portion.looked]
        self._on_progress(sum(entry.size for entry in portion.entries))

    def check_still(self) -> None:
        """Check that no file has changed since it was found.

        Raises:
            Conflict: names the files that have changed.
        """
        changed = [path for path, place, before in self._looked if not _is_there(place, before)]
        if changed:
            raise Conflict(
                f"{_names(changed)} changed while it was being uploaded.",
                "Upload again when no program writes there. Only the changes are sent.",
            )


def look(path: str) -> Found:
    """Find the files to upload. Leaves out sockets, pipes, devices, and links that lead out or to nothing.

    Raises:
        NotFound: when nothing exists at `path`.
        InvalidConfig: when it is neither folder nor file, or a name in it has a line break.
        SpellError: when a file cannot be read.
    """
    root = os.fsencode(os.path.realpath(path))
    try:
        status = os.stat(root)
    except OSError as error:
        raise NotFound(f"{path!r} cannot be uploaded: {error.strerror}.") from error
    if stat.S_ISREG(status.st_mode):
        return Found([(os.path.basename(os.fsencode(os.path.abspath(path))), root, status)])
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidConfig(f"{path!r} is neither a folder nor a file.")
    found, special, links = Found(), [], []
    for looked in _walk(root):
        if stat.S_ISREG(looked[2].st_mode):
            found.files.append(looked)
        elif stat.S_ISLNK(looked[2].st_mode):
            links.append(looked)
        else:
            special.append((looked[0], special_kind(looked[2])))
    found.warnings += [f"{_names([path])} is left out: it is {kind}." for path, kind in special]
    _add_links(root, found, links)
    return found


def _walk(root: bytes) -> Iterator[_Looked]:
    todo = [b""]
    while todo:  # no recursion: folders may be nested very deep
        below = todo.pop()
        prefix = below + b"/" if below else b""
        try:
            for entry in list(os.scandir(os.path.join(root, below))):
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    todo.append(path)
                elif b"\n" in path:
                    raise InvalidConfig(
                        f"The file name {os.fsdecode(path)!r} contains a line break.", "Rename the file."
                    )
                else:
                    yield path, entry.path, entry.stat(follow_symlinks=False)
        except OSError as error:
            raise _unreadable(below or b".", error) from error


def _add_links(root: bytes, found: Found, links: list[_Looked]) -> None:
    """Add the links that lead to uploaded files, also through other links; warn about the others."""
    if not links:
        return
    left_out = []
    taken = {os.fsdecode(path) for path, _, _ in found.files}
    folders = {path[:at] for path in taken for at, char in enumerate(path) if char == "/"}
    for looked in links:
        path, place, _ = looked
        is_inside = said_target(os.fsdecode(path), os.fsdecode(os.readlink(place))) is not None
        leads_to = found_target(os.fsdecode(root), os.fsdecode(path))
        if is_inside and (leads_to in taken or leads_to in folders):
            found.files.append(looked)
        else:
            left_out.append(path)
    if left_out:
        found.warnings.append(f"Links that lead to nothing in the upload are left out: {_names(left_out)}.")


def _big_entry(
    path: bytes, place: bytes, status: os.stat_result, on_progress: Callable[[int], object], is_over: Callable[[], bool]
) -> Entry | None:
    hashing, size = hashlib.sha256(), 0
    try:
        for chunk in file_chunks(place, status.st_size):
            hashing.update(chunk)
            size += len(chunk)
            on_progress(len(chunk))
            if is_over():
                return None
        now = os.lstat(place)
    except OSError as error:
        raise _unreadable(path, error) from error
    return _entry(path, status, now, size, hashing.hexdigest())


def _small_entry(path: bytes, place: bytes, status: os.stat_result, kept: dict[str, bytes]) -> Entry:
    try:
        data, now = _read(place, status.st_size, is_link=stat.S_ISLNK(status.st_mode))
    except OSError as error:
        raise _unreadable(path, error) from error
    digest = hashlib.sha256(data).hexdigest()
    kept[digest] = data
    return _entry(path, status, now, len(data), digest)


def _entry(path: bytes, looked: os.stat_result, now: os.stat_result, size: int, digest: str) -> Entry:
    if size != looked.st_size or not _is_same(looked, now):
        raise Conflict(
            f"{_name(path)!r} changed while it was being read.", "Upload again when no program writes there."
        )
    return Entry(_name(path), manifests.mode_of(looked), digest, size)


def _name(path: bytes) -> str:
    return manifests.printable(os.fsdecode(path))


def _read(place: bytes, size: int, *, is_link: bool) -> tuple[bytes, os.stat_result]:
    """Return the text of a link, or the bytes of a small file (at most one more than `size`), and the status afterwards."""
    if is_link:
        return os.readlink(place), os.lstat(place)
    # If a link or a pipe lies in the file's place, this neither follows the one nor waits for the other.
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, size + 1), os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _is_there(place: bytes, before: os.stat_result) -> bool:
    try:
        return _is_same(before, os.lstat(place))
    except OSError:
        return False


def _is_same(before: os.stat_result, now: os.stat_result) -> bool:
    return (now.st_mtime_ns, now.st_size, now.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)


def _names(paths: list[bytes]) -> str:
    more = len(paths) - _NAMED
    words = ", ".join(repr(_name(path)) for path in paths[:_NAMED])
    return words + (f" and {more} more" if more > 0 else "")


def _unreadable(path: bytes, error: OSError) -> SpellError:
    name = _name(path)
    if isinstance(error, FileNotFoundError):
        return Conflict(f"{name!r} vanished while it was being read.", "Upload again when no program writes there.")
    return SpellError(f"{name!r} cannot be read: {error.strerror}.", "Nothing was uploaded.")
