"""A folder or a file to upload: its files, and the digest of each."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from orchestrator.capture.blobs import file_chunks
from orchestrator.content import manifest as manifests
from orchestrator.content.followed import Member, followed
from orchestrator.content.links import found_target, said_target
from orchestrator.content.manifest import Entry, Manifest, special_kind
from orchestrator.content.packs import SMALL_BYTES, grouped
from orchestrator.errors import Conflict, InvalidConfig, NotFound, SpellError

_NAMED = 3
_FIRST_TOGETHER = 250  # a small first portion, so that the server starts to work soon


class _Looked(NamedTuple):
    """A file to upload: its path in the upload, its place on the disk, its status, and the text of a link."""

    path: bytes
    place: bytes
    status: os.stat_result
    text: bytes | None = None


@dataclass(slots=True)
class Found:
    """The contents of a folder.

    Attributes:
        files: regular files and links.
        warnings: names of files that are left out, and why.
        outside: links that lead to files outside the folder, which are left out.
    """

    files: list[_Looked] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    outside: list[bytes] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        """The total size of the files in bytes."""
        return sum(looked.status.st_size for looked in self.files)

    @property
    def outside_words(self) -> str:
        """A sentence about the links in `outside`; "" if there are none."""
        return f"Links that lead out of the folder are left out: {_names(self.outside)}." if self.outside else ""


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
        return self.looked[0].status.st_size > SMALL_BYTES

    def place(self, digest: str) -> bytes:
        """Return the path of the file with this digest."""
        return self._looked_with(digest).place

    def _looked_with(self, digest: str) -> _Looked:
        return next(looked for entry, looked in zip(self.entries, self.looked, strict=True) if entry.digest == digest)

    def content(self, digest: str, size: int) -> bytes:
        """Return the bytes of a small file, or the text of a link."""
        if (data := self.kept.get(digest)) is not None:
            return data
        return _read(self._looked_with(digest), size)[0]


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
        ordered = sorted(found.files, key=lambda looked: looked.status.st_ino)
        small = ((looked, looked.status.st_size) for looked in ordered if looked.status.st_size <= SMALL_BYTES)
        self.portions = [Portion([looked]) for looked in ordered if looked.status.st_size > SMALL_BYTES]
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
            entry = _big_entry(portion.looked[0], self._on_progress, is_over)
            portion.entries = [entry] if entry else []
            return
        with self._turn:  # two threads at once would mostly wait for each other
            portion.entries = [_small_entry(looked, portion.kept) for looked in portion.looked]
        self._on_progress(sum(entry.size for entry in portion.entries))

    def check_still(self) -> None:
        """Check that no file has changed since it was found.

        Raises:
            Conflict: names the files that have changed.
        """
        changed = [looked.path for looked in self._looked if not _is_there(looked)]
        if changed:
            raise Conflict(
                f"{_names(changed)} changed while it was being uploaded.",
                "Upload again when no program writes there. Only the changes are sent.",
            )


def look(path: str, *, follow_links: bool = False) -> Found:
    """Find the files to upload. Leaves out sockets, pipes, devices, and links that lead out or to nothing.

    Args:
        follow_links: upload what links lead to that lead out of the folder.

    Raises:
        NotFound: when nothing exists at `path`.
        InvalidConfig: when it is neither folder nor file, or a name in it has a line break.
        SpellError: when a file cannot be read.
    """
    root = os.path.realpath(path)
    try:
        status = os.stat(root)
    except OSError as error:
        raise NotFound(f"{path!r} cannot be uploaded: {error.strerror}.") from error
    if stat.S_ISREG(status.st_mode):
        return Found([_Looked(os.fsencode(os.path.basename(os.path.abspath(path))), os.fsencode(root), status)])
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidConfig(f"{path!r} is neither a folder nor a file.")
    found, special, links, lost = Found(), [], [], []
    for item in _members(root, "/" if follow_links else root):
        looked = _Looked(os.fsencode(item.path), os.fsencode(item.place), item.status)
        if item.is_lost:
            lost.append(looked)
        elif item.link:
            links.append(looked._replace(text=os.fsencode(item.link)))
        elif stat.S_ISREG(item.status.st_mode):
            found.files.append(looked)
        elif not stat.S_ISDIR(item.status.st_mode):
            special.append((looked.path, special_kind(item.status)))
    found.outside = [looked.path for looked in lost if os.path.exists(looked.place)]
    found.warnings += [f"{_names([path])} is left out: it is {kind}." for path, kind in special]
    _add_links(os.fsencode(root), found, links, [looked.path for looked in lost if not os.path.exists(looked.place)])
    return found


def _members(root: str, bound: str) -> Iterator[Member]:
    try:
        for item in followed(Path(root), Path(bound)):
            if "\n" in item.path and (item.link or not stat.S_ISDIR(item.status.st_mode)):
                raise InvalidConfig(f"The file name {item.path!r} contains a line break.", "Rename the file.")
            yield item
    except OSError as error:
        inside = os.path.relpath(error.filename, root) if error.filename else "."
        raise _unreadable(os.fsencode(inside), error) from error


def _add_links(root: bytes, found: Found, links: list[_Looked], left_out: list[bytes]) -> None:
    """Add the links that lead to uploaded files, also through other links; warn about the others."""
    taken = {os.fsdecode(looked.path) for looked in found.files} if links else set()
    folders = {path[:at] for path in taken for at, char in enumerate(path) if char == "/"}
    for looked in links:
        leads_to = said_target(os.fsdecode(looked.path), os.fsdecode(looked.text or b""))
        through = found_target(os.fsdecode(root), os.fsdecode(looked.path))
        if not {leads_to, through}.isdisjoint(taken | folders):
            found.files.append(looked)
        else:
            left_out.append(looked.path)
    if left_out:
        found.warnings.append(f"Links that lead to nothing in the upload are left out: {_names(left_out)}.")


def _big_entry(looked: _Looked, on_progress: Callable[[int], object], is_over: Callable[[], bool]) -> Entry | None:
    hashing, size = hashlib.sha256(), 0
    try:
        for chunk in file_chunks(looked.place, looked.status.st_size):
            hashing.update(chunk)
            size += len(chunk)
            on_progress(len(chunk))
            if is_over():
                return None
        now = os.lstat(looked.place)
    except OSError as error:
        raise _unreadable(looked.path, error) from error
    return _entry(looked, now, size, hashing.hexdigest())


def _small_entry(looked: _Looked, kept: dict[str, bytes]) -> Entry:
    try:
        data, now = _read(looked, looked.status.st_size)
    except OSError as error:
        raise _unreadable(looked.path, error) from error
    digest = hashlib.sha256(data).hexdigest()
    kept[digest] = data
    return _entry(looked, now, len(data), digest)


def _entry(looked: _Looked, now: os.stat_result, size: int, digest: str) -> Entry:
    name = _name(looked.path)
    if looked.text is not None:
        return Entry(name, manifests.LINK, digest, size)
    if size != looked.status.st_size or not _is_same(looked.status, now):
        raise Conflict(f"{name!r} changed while it was being read.", "Upload again when no program writes there.")
    return Entry(name, manifests.mode_of(looked.status), digest, size)


def _name(path: bytes) -> str:
    return manifests.printable(os.fsdecode(path))


def _read(looked: _Looked, size: int) -> tuple[bytes, os.stat_result]:
    """Return the text of a link, or the bytes of a small file (at most one more than `size`), and the status afterwards."""
    if looked.text is not None:
        return looked.text, looked.status
    # If a link or a pipe lies in the file's place, this neither follows the one nor waits for the other.
    descriptor = os.open(looked.place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, size + 1), os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _is_there(looked: _Looked) -> bool:
    try:
        return _is_same(looked.status, os.lstat(looked.place))
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
