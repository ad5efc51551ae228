"""A folder, or one file, as it is to be uploaded: what is in it, and the digest of each file."""

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
_FIRST_TOGETHER = 250  # the sooner the server has something to do

_Looked = tuple[bytes, bytes, os.stat_result]  # path relative to the root, place, what lies there


@dataclass(slots=True)
class Found:
    """What lies in a folder.

    Attributes:
        files: regular files and links.
        warnings: what is left out, and why.
    """

    files: list[_Looked] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        """How big the files are together."""
        return sum(status.st_size for _, _, status in self.files)


@dataclass(slots=True)
class Portion:
    """Files that are hashed and sent together: many small ones, or a big one.

    Attributes:
        looked: what lay there when it was looked for.
        entries: of these files, in the same order; none before they were hashed.
        kept: the content of small files, by digest: they are read once.
        told_bytes: how big is what somebody was told to be there.
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
        """Where the content of a digest lies."""
        return next(
            place for entry, (_, place, _) in zip(self.entries, self.looked, strict=True) if entry.digest == digest
        )

    def content(self, digest: str, size: int) -> bytes:
        """The bytes of a small file, or the text of a link."""
        if (data := self.kept.get(digest)) is not None:
            return data
        place = self.place(digest)
        return _read(place, size, is_link=os.path.islink(place))[0]


class DataTree:
    """What is to be uploaded, hashed when it is asked for.

    Args:
        found: what is in it.
        said: called with the number of bytes that were read meanwhile, from any thread.

    Attributes:
        total_bytes: how big its files are together.
        portions: its files, as they lie on the disk.
    """

    def __init__(self, found: Found, said: Callable[[int], object] = lambda _bytes: None) -> None:
        self._looked, self._said = found.files, said
        self._turn = threading.Lock()
        self.total_bytes = found.total_bytes
        ordered = sorted(found.files, key=lambda looked: looked[2].st_ino)
        small = ((looked, looked[2].st_size) for looked in ordered if looked[2].st_size <= SMALL_BYTES)
        self.portions = [Portion([looked]) for looked in ordered if looked[2].st_size > SMALL_BYTES]
        self.portions += [Portion(group) for group in grouped(small, first=_FIRST_TOGETHER)]

    @functools.cached_property
    def manifest(self) -> Manifest:
        """Its files, all of which were read; paths in the form of `manifest.printable`."""
        return manifests.joined(entry for portion in self.portions for entry in portion.entries)

    def read(self, portion: Portion, is_over: Callable[[], bool] = lambda: False) -> None:
        """Hash the files of a portion, unless they were.

        Args:
            is_over: asked now and then; when it says so, a big file is given up, and has no entry.

        Raises:
            SpellError: a file cannot be read.
            Conflict: a file has changed since it was looked for: what is read is what lay there at that moment.
        """
        if portion.entries:
            return
        if portion.is_big:
            entry = _big_entry(*portion.looked[0], self._said, is_over)
            portion.entries = [entry] if entry else []
            return
        with self._turn:  # two at once would wait for each other longer than they work
            portion.entries = [_small_entry(*looked, portion.kept) for looked in portion.looked]
        self._said(sum(entry.size for entry in portion.entries))

    def check_still(self) -> None:
        """See that nothing has changed since it was looked for.

        Raises:
            Conflict: naming what has.
        """
        changed = [path for path, place, before in self._looked if not _is_there(place, before)]
        if changed:
            raise Conflict(
                f"{_names(changed)} changed while it was being uploaded.",
                "Upload again when nobody writes there: only what has changed is sent.",
            )


def look(path: str) -> Found:
    """Find what is to be uploaded. Sockets, pipes, devices, and links that lead out or to nothing are left out.

    Raises:
        NotFound: there is nothing at `path`.
        InvalidConfig: it is neither folder nor file, or a name in it has a line break.
        SpellError: something cannot be read.
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
    while todo:  # no recursion: folders may be nested as deep as paths go
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
    """Take the links that lead to what is taken, by way of other links too; say which do not."""
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
        found.warnings.append(f"Left out, as links that lead to nothing that is uploaded: {_names(left_out)}.")


def _big_entry(
    path: bytes, place: bytes, status: os.stat_result, said: Callable[[int], object], is_over: Callable[[], bool]
) -> Entry | None:
    hashing, size = hashlib.sha256(), 0
    try:
        for chunk in file_chunks(place, status.st_size):
            hashing.update(chunk)
            size += len(chunk)
            said(len(chunk))
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
        raise Conflict(f"{_name(path)!r} changed while it was being read.", "Upload again when nobody writes there.")
    return Entry(_name(path), manifests.mode_of(looked), digest, size)


def _name(path: bytes) -> str:
    return manifests.printable(os.fsdecode(path))


def _read(place: bytes, size: int, *, is_link: bool) -> tuple[bytes, os.stat_result]:
    """The text of a link, or the bytes of a small file (one more than `size`, when there are more); and what lies there
    afterwards."""
    if is_link:
        return os.readlink(place), os.lstat(place)
    # Neither follows a link, nor waits for a pipe, in the file's place.
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
        return Conflict(f"{name!r} vanished while it was being read.", "Upload again when nobody writes there.")
    return SpellError(f"{name!r} cannot be read: {error.strerror}.", "Nothing was uploaded.")
