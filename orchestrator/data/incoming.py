"""An upload while it arrives: which of its files have arrived, and how many bytes of incomplete ones.

    incoming/NAME/
      trees/SESSION/…   complete, sealed files at their paths; of earlier attempts too
      parts/DIGEST      the first bytes of a big file

The client announces files, some at a time. Each is first looked up in the files of earlier attempts and of an earlier
upload of this name, and taken if its content has the digest. So no file is sent twice, whatever happened in between, and
the tree of a session holds only files of this upload.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from orchestrator.content.files import below, remove_tree, sha256
from orchestrator.content.links import found_target, said_target
from orchestrator.content.manifest import EXECUTABLE, LINK, Entry, Manifest, actual, joined, printable
from orchestrator.errors import Conflict, InvalidConfig, NotFound
from orchestrator.records.uploads import UploadNeeds

_HASHED_AT_ONCE = 4
_MODES = {EXECUTABLE: 0o555}
_MODE = 0o444


class Incoming:
    """One upload that is not complete yet.

    Args:
        folder: the folder in which it arrives; made if it does not exist.
        earlier: the sealed files of the published upload of this name.
        manifest: the manifest of that upload; None if it does not exist.

    Attributes:
        session: names the current sender.
        tree: the folder in which its files are gathered.
        there_bytes: the total size of the files of earlier attempts and of the earlier upload.
        turn: held while many files are announced or small files are added. Two threads that make a system call for each
            file would wait for each other at every call; one after the other takes half the time.
    """

    def __init__(self, folder: Path, earlier: Path, manifest: Manifest | None) -> None:
        self.folder, self.session = folder, uuid.uuid4().hex
        self.tree, self._parts = folder / "trees" / self.session, folder / "parts"
        self._root = str(self.tree)
        self.tree.mkdir(parents=True)
        self._parts.mkdir(exist_ok=True)
        self._earlier = str(earlier)
        kept = manifest.entries if manifest else ()
        self._known = {(entry.digest, entry.mode): entry.path for entry in kept if entry.mode != LINK}
        self._begun = {part.name: part.stat().st_size for part in self._parts.iterdir()}
        self.there_bytes = sum(entry.size for entry in kept) + sum(self._begun.values())
        self._staged: dict[str, str] = {}  # path → earlier attempt; only these paths contain no links that lead away
        for attempt in self.tree.parent.iterdir():
            if attempt != self.tree:
                self._look(attempt)
        self._lock, self._appending = threading.Lock(), threading.Lock()
        self.turn = threading.Lock()
        self._entries: dict[str, list[Entry]] = {}  # all announced entries, by digest
        self._paths: set[str] = set()
        self._folders = {""}
        self._missing: set[str] = set()
        self._announcing, self._is_sealed = 0, False
        self._is_mode_kept = not _umask() & 0o555

    def _look(self, attempt: Path) -> None:
        """List the files of an earlier attempt, and make them movable."""
        found = False
        for path, status in list(below(attempt)):
            if stat.S_ISDIR(status.st_mode):
                (attempt / path).chmod(0o755)  # it is sealed if it was about to be published
            else:
                found = True
                self.there_bytes += status.st_size
                self._staged[path] = str(attempt)
        if not found:
            remove_tree(attempt)

    # -- announcing ---------------------------------------------------------------------------------------------

    def announce(self, manifest: Manifest) -> UploadNeeds:
        """Add files to the upload. Returns which of them to send.

        Raises:
            InvalidConfig: when a path is not in the form of `manifest.printable`, or conflicts with one announced before.
            Conflict: when the upload is sealed.
        """
        with self.turn, self._lock:
            self._refuse_sealed()
            self._note(manifest)
            self._announcing += 1
        try:
            taken = self._take(manifest.entries) if self._staged or self._known else set()
            with self.turn, self._lock:
                for entry in manifest.entries:
                    if entry.path in taken:
                        self._entries.setdefault(entry.digest, []).append(entry)
                asked = {e.digest for e in manifest.entries if e.path not in taken and self._asks_for(e)}
            begun = {digest: size for digest in asked & self._begun.keys() if (size := self._begun_of(digest))}
            asked &= self._missing
        finally:
            with self._lock:
                self._announcing -= 1
        return UploadNeeds(None if asked == manifest.digests else sorted(asked), begun)

    def _note(self, manifest: Manifest) -> None:
        """Make the folders. No path may lie below an announced file or link, or it would be written through the link."""
        for entry in manifest.entries:
            path = entry.path
            if ("\\" in path or not path.isascii()) and printable(actual(path)) != path:
                raise InvalidConfig(f"A path of the upload is not in its normal form: {path!r}.")
            if path in self._paths or path in self._folders:
                raise InvalidConfig(f"A path of the upload is announced twice: {path!r}.")
            self._paths.add(path)
            folder, new = path.rpartition("/")[0], []
            while folder not in self._folders:
                new.append(folder)
                folder = folder.rpartition("/")[0]
            for folder in reversed(new):
                if folder in self._paths:
                    raise InvalidConfig(f"A path of the upload lies below a file: {path!r}.")
                os.mkdir(f"{self._root}/{actual(folder)}")
                self._folders.add(folder)

    def _asks_for(self, entry: Entry) -> bool:
        """Whether an entry must be sent: its content neither exists, nor is requested for another file."""
        others = self._entries.setdefault(entry.digest, [])
        if others and others[0].size != entry.size:
            raise InvalidConfig(f"The size of {entry.path!r} differs from that of another file with the same digest.")
        others.append(entry)
        if entry.digest in self._missing:
            return False
        if len(others) > 1 and LINK not in (others[0].mode, entry.mode):
            self._repeat(others[0], entry)
            return False
        self._missing.add(entry.digest)
        return True

    def _take(self, wanted: Iterable[Entry]) -> set[str]:
        """Take the files that an earlier attempt or upload has. Returns their paths."""
        found = []
        for entry in wanted:
            path = actual(entry.path)
            attempt, place = self._staged.pop(path, None), self._place(entry)
            earlier = self._known.get((entry.digest, entry.mode))
            with contextlib.suppress(OSError):  # removed by hand, or on another disk
                if attempt and _looks_like(os.lstat(f"{attempt}/{path}"), entry):
                    os.rename(f"{attempt}/{path}", place)
                    found.append((place, entry))
                    continue
                if attempt:
                    os.unlink(f"{attempt}/{path}")
            with contextlib.suppress(OSError):
                if earlier:
                    os.link(f"{self._earlier}/{actual(earlier)}", place, follow_symlinks=False)
                    found.append((place, entry))
        return {entry.path for entry in _whole(found)}

    def _begun_of(self, digest: str) -> int:
        """Return how many bytes of an incomplete file have arrived."""
        begun, size, part = self._begun.pop(digest), self._entries[digest][0].size, self._parts / digest
        if begun < size:
            return begun
        if begun == size and sha256(part) == digest:
            self._settle(part, digest)  # the server was killed after the last byte
        else:
            part.unlink()
        return 0

    # -- receiving ----------------------------------------------------------------------------------------------

    def add(self, blobs: Iterable[tuple[str, memoryview]]) -> None:
        """Store complete files, whose digests were checked, or the texts of links.

        Raises:
            NotFound: when no file with this digest was announced.
            Conflict: when the upload is sealed.
            OSError: when a file cannot be written.
        """
        added = []
        with self.turn:
            self._refuse_sealed()
            for digest, data in blobs:
                for entry in self._entries.get(digest) or self._refuse_unknown(digest):
                    self._add(entry, data)
                added.append(digest)
            with self._lock:
                self._missing.difference_update(added)

    def _add(self, entry: Entry, data: memoryview) -> None:
        if entry.mode == LINK:
            _check_link(entry, text := bytes(data))
            with contextlib.suppress(FileExistsError):
                os.symlink(text, os.fsencode(self._place(entry)))
        elif len(data) != entry.size:
            raise InvalidConfig(f"The size of {entry.path!r} differs from the announced size.")
        else:
            _write(self._place(entry), data, _MODES.get(entry.mode, _MODE), is_mode_kept=self._is_mode_kept)

    def _after(self, digest: str, done: int) -> list[Entry]:
        """Return the entries of a digest after the first `done`. If none is left, the digest counts as arrived."""
        with self._lock:
            self._refuse_sealed()
            found = self._entries.get(digest) or self._refuse_unknown(digest)
            if len(found) == done:
                self._missing.discard(digest)
            return found[done:]

    def _refuse_sealed(self) -> None:
        if self._is_sealed:
            raise Conflict("The upload is complete and takes no more files.")

    def _refuse_unknown(self, digest: str) -> NoReturn:
        raise NotFound(f"The upload has no file with digest {digest[:12]}.")

    def append(self, digest: str, offset: int, data: bytes) -> None:
        """Store the next bytes of a file, and move it to its path when it is complete.

        Raises:
            NotFound: when no file with this digest was announced.
            Conflict: when these are not its next bytes, or the complete file has another digest.
            OSError: when they cannot be written.
        """
        entry, part = self._after(digest, 0)[0], self._parts / digest
        with self._appending:
            there = part.stat().st_size if part.exists() else 0
            if offset != there or offset + len(data) > entry.size:
                raise Conflict(f"{there} bytes of {entry.path!r} have arrived, not {offset}.")
            try:
                with part.open("ab", buffering=0) as file:
                    while data:
                        data = data[file.write(data) :]
            except OSError:
                os.truncate(part, there)
                raise
            if part.stat().st_size < entry.size:
                return
        if sha256(part) != digest:
            part.unlink()
            raise Conflict(f"{entry.path!r} changed while it was sent.", "Upload again.")
        self._settle(part, digest)

    def _settle(self, part: Path, digest: str) -> None:
        first, done = None, 0
        while entries := self._after(digest, done):
            for entry in entries:
                if entry.mode == LINK:
                    raise InvalidConfig(f"The text of the link {entry.path!r} is too long.")
                if first:
                    self._repeat(first, entry)
                else:
                    part.chmod(_MODES.get(entry.mode, _MODE))
                    part.replace(self._place(entry))
                    first = entry
            done += len(entries)

    def _repeat(self, first: Entry, entry: Entry) -> None:
        """Make another file with the content of an existing one."""
        source, place = self._place(first), self._place(entry)
        if first.mode == entry.mode:
            with contextlib.suppress(OSError):  # the number of hard links is limited
                os.link(source, place)
                return
        shutil.copyfile(source, place)
        os.chmod(place, _MODES.get(entry.mode, _MODE))

    def _place(self, entry: Entry) -> str:
        return f"{self._root}/{actual(entry.path)}"  # text, because making a Path takes longer than making a small file

    # -- the end ------------------------------------------------------------------------------------------------

    def seal(self, tree: str) -> Manifest:
        """Check that exactly the announced files exist, and take the write bits off its folders (except the uppermost).
        The upload takes no more files then.

        Args:
            tree: the expected `Manifest.tree`.

        Raises:
            InvalidConfig: when nothing was announced.
            Conflict: when a file is missing, or a link leads out.
        """
        with self.turn, self._lock:
            if self._missing or self._announcing:
                missing = len(self._missing)
                what = "1 file of the upload is" if missing == 1 else f"{missing} files of the upload are"
                raise Conflict(f"{what} missing.", "Upload again.")
            if not self._paths:
                raise InvalidConfig("There is nothing to upload: no file was found.")
            manifest = joined(entry for entries in self._entries.values() for entry in entries)
            if manifest.tree != tree or not self._holds(manifest):
                raise Conflict("The files that arrived differ from those of the upload.", "Upload again.")
            self._check_links(manifest)
            for folder in self._folders - {""}:
                os.chmod(f"{self._root}/{actual(folder)}", 0o555)
            self._is_sealed = True
        return manifest

    def _check_links(self, manifest: Manifest) -> None:
        for entry in manifest.entries:
            if entry.mode == LINK and found_target(self._root, actual(entry.path)) is None:
                raise Conflict(f"The link {entry.path!r} leads out of the upload.")

    def _holds(self, manifest: Manifest) -> bool:
        """Whether exactly the files of a manifest exist."""
        wanted: dict[str, set[str]] = {folder: set() for folder in self._folders}
        for path in (*(self._folders - {""}), *(entry.path for entry in manifest.entries)):
            folder, _, name = path.rpartition("/")
            wanted[folder].add(actual(name))
        return all(set(os.listdir(f"{self._root}/{actual(folder)}")) == names for folder, names in wanted.items())


def _looks_like(status: os.stat_result, entry: Entry) -> bool:
    if stat.S_ISLNK(status.st_mode):
        return entry.mode == LINK
    if not stat.S_ISREG(status.st_mode) or entry.mode == LINK:
        return False
    return stat.S_IMODE(status.st_mode) == _MODES.get(entry.mode, _MODE) and status.st_size == entry.size


def _whole(candidates: list[tuple[str, Entry]]) -> list[Entry]:
    """Return the entries whose files have the right content, and remove the files of the others."""

    def is_whole(candidate: tuple[str, Entry]) -> bool:
        place, entry = candidate
        with contextlib.suppress(OSError):
            if sha256(Path(place)) == entry.digest:
                return True
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)  # an unreadable file too, because a sent file is written only where none exists
        return False

    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        return [entry for (_, entry), whole in zip(candidates, pool.map(is_whole, candidates), strict=True) if whole]


def _write(place: str, data: memoryview, mode: int, *, is_mode_kept: bool) -> None:
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except FileExistsError:
        return  # sent twice
    try:
        if not is_mode_kept:
            os.fchmod(descriptor, mode)
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        os.unlink(place)
        raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    """Return the umask, if the system reports it without a change; else all bits."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777


def _check_link(entry: Entry, text: bytes) -> None:
    """Raise Conflict when the text of a link leads out; `_check_links` checks what the kernel finds at the end."""
    if said_target(actual(entry.path), os.fsdecode(text)) is None:
        raise Conflict(f"The link {entry.path!r} leads out of the upload.")
