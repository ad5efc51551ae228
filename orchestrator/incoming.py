"""An upload while it comes in: which of its files are there, under which paths, and how much of those that are begun.

    incoming/NAME/
      tree/…          files that are whole, sealed, where they will be
      parts/DIGEST    what has come of a big one

A file of `tree` is whole when its content has its digest; after a crash, or when somebody uploads again, that is looked
at anew. So nothing that has come is sent twice, whatever happened in between.
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

from orchestrator import outputs
from orchestrator.errors import Conflict, InvalidConfig, NotFound
from orchestrator.manifest import EXECUTABLE, LINK, Entry, Manifest, actual, printable

_HASHED_AT_ONCE = 4
_MODES = {EXECUTABLE: 0o555}
_MODE = 0o444


class Incoming:
    """One upload that is not whole yet.

    Args:
        folder: where it comes in; made when it is not there.
        manifest: what it will be; its paths in the form of `manifest.printable`.

    Attributes:
        session: names this moment's sender.
        missing: digests of files that are not there.
        turn: held by whoever adds many: two at once would wait for each other longer than they work.

    Raises:
        InvalidConfig: when a path of the manifest does not have that form.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest, self.session = folder, manifest, uuid.uuid4().hex
        self.tree, self._parts = folder / "tree", folder / "parts"
        self._entries: dict[str, list[Entry]] = {}
        self._root = str(self.tree)
        for entry in manifest.entries:
            if printable(actual(entry.path)) != entry.path:
                raise InvalidConfig(f"A path of the upload is not in its plain form: {entry.path!r}.")
            self._entries.setdefault(entry.digest, []).append(entry)
        self._lock = threading.Lock()
        self.turn = threading.Lock()
        self._made: set[str] = set()
        self.missing: set[str] = set()

    # -- what is there ------------------------------------------------------------------------------------------

    def look(self, earlier: Path, manifest: Manifest | None) -> None:
        """See what is there of it, and take what an earlier upload has of it.

        Args:
            earlier: its sealed files.
            manifest: its manifest; None when there is none.
        """
        self.tree.mkdir(parents=True, exist_ok=True)
        self._parts.mkdir(exist_ok=True)
        there = self._staged()
        wanted = [entry for entry in self.manifest.entries if entry.path not in there]
        if wanted and manifest:
            self._take(wanted, earlier, manifest)
            wanted = [entry for entry in wanted if not os.path.lexists(self._place(entry))]
        self.missing = {entry.digest for entry in wanted}
        for part in list(self._parts.iterdir()):
            size = self._entries[part.name][0].size if part.name in self.missing else -1
            if part.stat().st_size == size and outputs.sha256(part) == part.name:
                self._settle(part, part.name)  # a crash came between its last byte and this
            elif part.stat().st_size >= size:
                part.unlink()

    @property
    def begun(self) -> dict[str, int]:
        """How many bytes are there of files that are not whole."""
        return {part.name: part.stat().st_size for part in self._parts.iterdir()}

    @property
    def missing_bytes(self) -> int:
        """How much is still to come."""
        return sum(self._entries[digest][0].size for digest in self.missing) - sum(self.begun.values())

    def _staged(self) -> set[str]:
        """The paths whose files are there and whole; what does not belong there is removed."""
        entries = {actual(entry.path): entry for entry in self.manifest.entries}
        needed = {path[:at] for path in entries for at, char in enumerate(path) if char == "/"}
        folders, candidates = [], []
        for path, status in list(outputs.below(self.tree)):
            place = self.tree / path
            if stat.S_ISDIR(status.st_mode):
                place.chmod(0o755)  # sealed, if somebody was about to publish it
                folders.append(path)
            elif (entry := entries.get(path)) and _looks_like(status, entry):
                candidates.append((str(place), entry))
            else:
                place.unlink()
        for path in reversed(folders):
            if path not in needed:
                _remove_folder(self.tree / path)
        return {entry.path for entry in _whole(candidates)}

    def _take(self, wanted: Iterable[Entry], earlier: Path, manifest: Manifest) -> None:
        known = {(entry.digest, entry.mode): entry for entry in manifest.entries if entry.mode != LINK}
        linked = []
        for entry in wanted:
            source = known.get((entry.digest, entry.mode))
            if source is not None:
                with contextlib.suppress(OSError):  # removed by hand, or of another disk
                    self._make_folder(entry)
                    os.link(earlier / actual(source.path), self._place(entry), follow_symlinks=False)
                    linked.append((self._place(entry), entry))
        whole = {entry.path for entry in _whole(linked)}
        for place, entry in linked:
            if entry.path not in whole:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(place)

    # -- what comes ---------------------------------------------------------------------------------------------

    def add(self, digest: str, data: memoryview) -> None:
        """Keep a whole file, whose digest was checked; or the text of a link.

        Raises:
            NotFound: when the upload has no such file.
            OSError: when it cannot be written.
        """
        for entry in self._of(digest):
            self._make_folder(entry)
            if entry.mode == LINK:
                _check_link(entry, text := bytes(data))
                with contextlib.suppress(FileExistsError):
                    os.symlink(text, os.fsencode(self._place(entry)))
            elif len(data) != entry.size:
                raise InvalidConfig(f"The size of {entry.path!r} is not what the manifest says.")
            else:
                _write(self._place(entry), data, _MODES.get(entry.mode, _MODE))
        self.missing.discard(digest)

    def append(self, digest: str, offset: int, data: bytes) -> None:
        """Keep the next bytes of a file; when it is whole, it is put where it belongs.

        Raises:
            NotFound: when the upload has no such file.
            Conflict: when these are not its next bytes, or the whole has another digest.
            OSError: when they cannot be written.
        """
        entry, part = self._of(digest)[0], self._parts / digest
        with self._lock:
            there = part.stat().st_size if part.exists() else 0
            if offset != there or offset + len(data) > entry.size:
                raise Conflict(f"{there} bytes of {entry.path!r} are there, not {offset}.")
            try:
                with part.open("ab", buffering=0) as file:
                    while data:
                        data = data[file.write(data) :]
            except OSError:
                os.truncate(part, there)
                raise
            if part.stat().st_size < entry.size:
                return
        if outputs.sha256(part) != digest:
            part.unlink()
            raise Conflict(f"{entry.path!r} changed while it was sent.", "Upload again.")
        self._settle(part, digest)

    def _settle(self, part: Path, digest: str) -> None:
        done: dict[str, str] = {}
        for entry in self._of(digest):
            self._make_folder(entry)
            place, same = self._place(entry), done.get(entry.mode)
            beside = self.folder / "copying"
            if same:
                os.link(same, beside)
            elif done:
                shutil.copyfile(part, beside)
            else:
                os.link(part, beside)
            beside.chmod(_MODES.get(entry.mode, _MODE))
            beside.replace(place)
            done[entry.mode] = place
        part.unlink()
        self.missing.discard(digest)

    def _of(self, digest: str) -> list[Entry]:
        found = self._entries.get(digest)
        if found is None:
            raise NotFound(f"The upload has no file with digest {digest[:12]}.")
        return found

    def _place(self, entry: Entry) -> str:
        return f"{self._root}/{actual(entry.path)}"  # a Path takes longer than the file, where there are many

    def _make_folder(self, entry: Entry) -> None:
        folder = entry.path.rpartition("/")[0]
        if folder not in self._made:
            (self.tree / actual(folder)).mkdir(parents=True, exist_ok=True)
            self._made.add(folder)

    # -- the end ------------------------------------------------------------------------------------------------

    def seal(self) -> None:
        """Check that all is there, and nothing else; take the write bits off its folders (not the uppermost's).

        Raises:
            Conflict: when something is missing, or a link leads out.
        """
        if self.missing:
            raise Conflict(f"{len(self.missing)} files of the upload are missing.", "Upload again.")
        root, folders, there = self.tree.resolve(), [], set()
        for path, status in outputs.below(self.tree):
            if stat.S_ISDIR(status.st_mode):
                folders.append(path)
                continue
            there.add(printable(path))
            if stat.S_ISLNK(status.st_mode) and not (self.tree / path).resolve().is_relative_to(root):
                raise Conflict(f"The link {printable(path)!r} leads out of the upload.")
        if there != {entry.path for entry in self.manifest.entries}:
            raise Conflict("Somebody else uploads under the same name.", "Upload again.")
        for path in reversed(folders):
            os.chmod(self.tree / path, 0o555)


def _looks_like(status: os.stat_result, entry: Entry) -> bool:
    if stat.S_ISLNK(status.st_mode):
        return entry.mode == LINK
    if not stat.S_ISREG(status.st_mode) or entry.mode == LINK:
        return False
    return stat.S_IMODE(status.st_mode) == _MODES.get(entry.mode, _MODE) and status.st_size == entry.size


def _whole(candidates: list[tuple[str, Entry]]) -> list[Entry]:
    """The entries whose files have their content; the files of the others are removed."""

    def is_whole(candidate: tuple[str, Entry]) -> bool:
        place, entry = candidate
        with contextlib.suppress(OSError):
            if outputs.sha256(Path(place)) == entry.digest:
                return True
            os.unlink(place)
        return False

    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        return [entry for (_, entry), whole in zip(candidates, pool.map(is_whole, candidates), strict=True) if whole]


def _write(place: str, data: memoryview, mode: int) -> None:
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except FileExistsError:
        return  # sent twice
    try:
        os.fchmod(descriptor, mode)
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        os.unlink(place)
        raise
    finally:
        os.close(descriptor)


def _check_link(entry: Entry, text: bytes) -> None:
    """Raise Conflict when a link leads out by what it says; what the kernel finds is looked at when all is there."""
    leads_to = os.path.normpath(os.path.join(os.path.dirname(actual(entry.path)), os.fsdecode(text)))
    if not text or text.startswith(b"/") or b"\0" in text or leads_to == ".." or leads_to.startswith("../"):
        raise Conflict(f"The link {entry.path!r} leads out of the upload.")


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # something is left in it that belongs there
        folder.rmdir()
