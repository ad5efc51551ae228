"""The list of files of a snapshot, which client and server share, and from which the hash of a tree is computed.

Format: one entry per file, sorted by path (code points). The tree is the SHA-256 over, for each entry,
`MODE SP DIGEST SP SIZE SP PATH NUL` in UTF-8. Modes are git's: 100644, 100755 (executable), 120000 (symbolic link).
A digest is the SHA-256 of the file's bytes as they are in the working tree; for a link, of its text.

A manifest has no times. Where its files are made, all get one, which follows from the tree (`time_of`). Many tools take path and
time for the content (`datasets` for its cache, Python for byte code), and all runs may have their code at one path: so another tree has
another time. Within a tree no file may be older than another: `make` would make committed files again that are up to date.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterable
from operator import attrgetter
from typing import NamedTuple

from orchestrator.errors import InvalidConfig
from orchestrator.spec.mounts import relative_parts

FILE, EXECUTABLE, LINK = "100644", "100755", "120000"
_MODES = frozenset((FILE, EXECUTABLE, LINK))
_SPECIAL = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NO_NAMES = frozenset(("", ".", ".."))
_DIGEST = re.compile("[0-9a-f]{64}")
_ESCAPE = rb"\\x([89a-f][0-9a-f]|5c)"
_FROM_S = 1_000_000_000  # 2001: all formats know it (zip from 1980 on), and `make` finds it in the past
_SPAN_S = 1 << 29  # to 2018
_LIKE_AN_ESCAPE = rb"\\(?=x([89a-f][0-9a-f]|5c))"


def mode_of(status: os.stat_result) -> str:
    """Return the mode of a file or link; "" for anything else."""
    if stat.S_ISLNK(status.st_mode):
        return LINK
    if not stat.S_ISREG(status.st_mode):
        return ""
    return EXECUTABLE if status.st_mode & stat.S_IXUSR else FILE


def special_kind(status: os.stat_result) -> str:
    """Return the kind of a special file in words: "a socket"; it is neither file, link nor folder."""
    return _SPECIAL.get(stat.S_IFMT(status.st_mode), "not a file")


class Entry(NamedTuple):
    """One file of a snapshot: relative POSIX path, git mode, SHA-256 hex digest, size in bytes."""

    path: str
    mode: str
    digest: str
    size: int


class Manifest(NamedTuple):
    """All files of a snapshot, sorted by path."""

    entries: tuple[Entry, ...]

    @property
    def tree(self) -> str:
        """The tree hash, 64 hex digits; see the module's docstring for its format."""
        digest = hashlib.sha256()
        for path, mode, content, size in self.entries:
            digest.update(f"{mode} {content} {size} {path}\0".encode())
        return digest.hexdigest()

    @property
    def digests(self) -> frozenset[str]:
        """The digests of all its blobs."""
        return frozenset(entry.digest for entry in self.entries)

    def to_json(self) -> str:
        """Return it as JSON: a list of `[path, mode, digest, size]`."""
        return json.dumps(self.entries, separators=(",", ":"))


def time_of(tree: str) -> int:
    """The modification time of all files of a tree, in ns since the epoch: whole microseconds, which every file system keeps."""
    number = int(tree[:16], 16)
    return ((_FROM_S + number % _SPAN_S) * 1_000_000 + number // _SPAN_S % 1_000_000) * 1000


def make(entries: Iterable[Entry]) -> Manifest:
    """Make a manifest of these entries, sorted and checked.

    Raises:
        InvalidConfig: when a path leads out, occurs twice or lies below a file or link, or a field is malformed.
    """
    manifest = joined(entries)
    files = {entry.path for entry in manifest.entries}
    if len(files) != len(manifest.entries):
        raise InvalidConfig("A snapshot names the same path twice.")
    folders: set[str] = set()
    for path, mode, digest, size in manifest.entries:
        folder, slash, name = path.rpartition("/")
        if folder + slash not in folders or name in _NO_NAMES or "\0" in name or "\n" in name:
            _check_path(path, files)  # slow, so it checks one of many files in a folder
            folders.add(folder + slash)
        if mode not in _MODES or size < 0:
            raise InvalidConfig(f"An entry of the snapshot is malformed: {path!r}.")
        if not _DIGEST.fullmatch(digest):
            raise InvalidConfig(f"A digest of the snapshot is malformed: {path!r}.")
    return manifest


def joined(entries: Iterable[Entry]) -> Manifest:
    """Make a manifest of entries that were checked, and whose paths fit together."""
    return Manifest(tuple(sorted(entries, key=attrgetter("path"))))


def _check_path(path: str, files: Collection[str]) -> None:
    parts = relative_parts(path, "A path of the snapshot")
    if "/".join(parts) != path:
        raise InvalidConfig(f"A path of the snapshot is not in its normal form: {path!r}.")
    if any("/".join(parts[:depth]) in files for depth in range(1, len(parts))):
        raise InvalidConfig(f"A path of the snapshot lies below a file: {path!r}.")


def from_json(text: str | bytes) -> Manifest:
    """Read the output of `Manifest.to_json`, and trust nothing in it.

    Raises:
        InvalidConfig: when it is not a well-formed manifest.
    """
    try:
        rows = json.loads(text)
        entries = [Entry(str(path), str(mode), str(digest), int(size)) for path, mode, digest, size in rows]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidConfig(f"The manifest of the snapshot cannot be read: {error}") from error
    return make(entries)


def printable(path: str) -> str:
    """Return a path as text that every program can show; bytes that are not UTF-8 become `\\xNN`."""
    if path.isascii() and "\\" not in path:
        return path
    return re.sub(_LIKE_AN_ESCAPE, rb"\\x5c", os.fsencode(path)).decode("utf-8", "backslashreplace")


def actual(path: str) -> str:
    """Return the path for which `printable` returns this text."""
    if "\\" not in path:
        return path
    return os.fsdecode(re.sub(_ESCAPE, lambda found: bytes.fromhex(found[1].decode()), os.fsencode(path)))
