"""A folder, or one file, as it is to be uploaded: what is in it, and the digest of each file."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from orchestrator import manifest as manifests
from orchestrator.blobs import file_chunks
from orchestrator.errors import Conflict, InvalidConfig, NotFound, SpellError
from orchestrator.manifest import EXECUTABLE, FILE, LINK, Entry, Manifest

_HASHED_AT_ONCE = 4
_SMALL_BYTES = 1 << 20
_KEPT_BYTES = 64 << 20
_KINDS = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_NAMED = 3

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


@dataclass(frozen=True, slots=True)
class DataTree:
    """What is to be uploaded.

    Attributes:
        manifest: its files; paths in the form of `manifest.printable`.
        places: where the content of each digest lies.
        looked: what lay there when it was hashed.
        kept: the content of small files, as far as there was room: they are read once.
    """

    manifest: Manifest
    places: dict[str, bytes]
    looked: list[_Looked]
    kept: dict[str, bytes]

    def content(self, digest: str, size: int) -> bytes:
        """The bytes of a small file, or the text of a link."""
        data = self.kept.get(digest)
        return _read(self.places[digest], size) if data is None else data

    def check_still(self) -> None:
        """See that nothing has changed since.

        Raises:
            Conflict: naming what has.
        """
        changed = [path for path, place, before in self.looked if not _is_as(place, before)]
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
    for relative, place, status in _walk(root):
        kind = stat.S_IFMT(status.st_mode)
        if b"\n" in relative:
            raise InvalidConfig(f"The file name {os.fsdecode(relative)!r} contains a line break.", "Rename the file.")
        if kind == stat.S_IFREG:
            found.files.append((relative, place, status))
        elif kind == stat.S_IFLNK:
            links.append((relative, place, status))
        else:
            special.append((relative, _KINDS.get(kind, "not a file")))
    found.warnings += [f"{_names([path])} is left out: it is {kind}." for path, kind in special]
    _add_links(root, found, links)
    return found


def _walk(root: bytes) -> Iterator[_Looked]:
    todo = [b""]
    while todo:  # no recursion: folders may be nested as deep as paths go
        below = todo.pop()
        try:
            entries = list(os.scandir(os.path.join(root, below)))
            for entry in entries:
                path = os.path.join(below, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    todo.append(path)
                else:
                    yield path, entry.path, entry.stat(follow_symlinks=False)
        except OSError as error:
            raise _unreadable(below or b".", error) from error


def _add_links(root: bytes, found: Found, links: list[_Looked]) -> None:
    """Take the links that lead to what is taken, by way of other links too; say which do not."""
    if not links:
        return
    inside, left_out = root.rstrip(b"/") + b"/", []
    taken = {place for _, place, _ in found.files}
    folders = {place[:at] for place in taken for at, char in enumerate(place) if char == 0x2F}
    for looked in links:
        path, place, _ = looked
        text = os.readlink(place)
        target = os.path.normpath(os.path.join(os.path.dirname(path), text))
        leads_to = os.path.realpath(place)
        is_inside = not text.startswith(b"/") and target.partition(b"/")[0] != b".." and leads_to.startswith(inside)
        if is_inside and (leads_to in taken or leads_to in folders):
            found.files.append(looked)
        else:
            left_out.append(path)
    if left_out:
        found.warnings.append(f"{_names(left_out)}: left out, as links that lead to nothing that is uploaded.")


def digest(found: Found, said: Callable[[int], object] = lambda _bytes: None) -> DataTree:
    """Hash all files, big ones in several threads.

    Args:
        said: called with the number of bytes that were read meanwhile, from any thread.

    Raises:
        SpellError: a file cannot be read.
        Conflict: a file changed meanwhile.
    """
    made: dict[bytes, Entry] = {}
    kept: dict[str, bytes] = {}
    room = _KEPT_BYTES
    big = [looked for looked in found.files if looked[2].st_size > _SMALL_BYTES]
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        try:
            hashed = pool.map(lambda looked: _entry(looked[0], looked[1], looked[2], said), big)
            for looked in found.files:  # small ones here: threads would wait for each other longer than they work
                if looked[2].st_size <= _SMALL_BYTES:
                    entry, data = _small_entry(*looked)
                    made[looked[1]] = entry
                    said(entry.size)
                    if (room := room - entry.size) >= 0:
                        kept[entry.digest] = data
            made.update(zip((place for _, place, _ in big), hashed, strict=True))
        except BaseException:
            pool.shutdown(cancel_futures=True, wait=False)
            raise
    places = {entry.digest: place for place, entry in made.items()}
    return DataTree(manifests.make(made.values()), places, found.files, kept)


def _entry(path: bytes, place: bytes, status: os.stat_result, said: Callable[[int], object]) -> Entry:
    hashing, size = hashlib.sha256(), 0
    try:
        for chunk in file_chunks(place, status.st_size):
            hashing.update(chunk)
            size += len(chunk)
            said(len(chunk))
    except OSError as error:
        raise _unreadable(path, error) from error
    return _made(path, status, hashing.hexdigest(), size)


def _small_entry(path: bytes, place: bytes, status: os.stat_result) -> tuple[Entry, bytes]:
    try:
        if stat.S_ISLNK(status.st_mode):
            text = os.readlink(place)
            return Entry(_name(path), LINK, hashlib.sha256(text).hexdigest(), len(text)), text
        data = b"".join(file_chunks(place, status.st_size))
    except OSError as error:
        raise _unreadable(path, error) from error
    return _made(path, status, hashlib.sha256(data).hexdigest(), len(data)), data


def _made(path: bytes, status: os.stat_result, sha256: str, size: int) -> Entry:
    if size != status.st_size:
        raise Conflict(f"{_name(path)!r} changed while it was being read.", "Upload again when nobody writes there.")
    return Entry(_name(path), EXECUTABLE if status.st_mode & stat.S_IXUSR else FILE, sha256, size)


def _name(path: bytes) -> str:
    return manifests.printable(os.fsdecode(path))


def _read(place: bytes, size: int) -> bytes:
    return os.readlink(place) if os.path.islink(place) else b"".join(file_chunks(place, size))


def _is_as(place: bytes, before: os.stat_result) -> bool:
    try:
        now = os.lstat(place)
    except OSError:
        return False
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
