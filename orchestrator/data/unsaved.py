"""The files of a run that has not ended: what would become its outputs if it ended now.

The command goes on meanwhile: files grow, are replaced and vanish, and at its end all are moved to `runs/N`. So each file is
looked for where it is before and after that, in the order in which it moves; and a file that is read has the size that it had when it
was opened. A link is only followed to what lies in the work dir.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestrator.content.followed import Member
from orchestrator.content.links import said_target
from orchestrator.content.manifest import Manifest, mode_of
from orchestrator.data.outputs import Workspace, unsaved


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or link: its path below the listed folder, its status, and the text of a link, else ""."""

    path: str
    status: os.stat_result
    link: str = ""


class Unsaved:
    """What a run has left so far.

    Args:
        workspace: its work dir, and what was in it before.
        staging: where its outputs are gathered when it ends.
        target: `runs/N`, which has them then.
    """

    def __init__(self, workspace: Workspace, staging: Path, target: Path) -> None:
        self._workspace = workspace
        self._roots = (workspace.code, staging, target)

    def below(self, folder: str) -> list[Entry]:
        """Return everything below a folder ("" for all), by path, with the folders on the way. Empty if nothing is there."""
        before = f"{folder}/" if folder else ""
        found: dict[str, Entry] = {}
        for path, status, link in self._files(folder):
            if not path.startswith(before):
                continue
            inner = path[len(before) :]
            for end in (at for at, char in enumerate(inner) if char == "/"):
                if inner[:end] not in found and (above := self._status(before + inner[:end])):
                    found[inner[:end]] = Entry(inner[:end], above)
            found[inner] = Entry(inner, status, link)
        return sorted(found.values(), key=lambda entry: entry.path)

    def children(self, folder: str) -> list[Entry]:
        """Return the entries of a folder, by name. Of a folder in it, one file is enough to know that it is there."""
        before = f"{folder}/" if folder else ""
        found: dict[str, Entry] = {}

        def is_known(path: str) -> bool:
            return path.startswith(before) and path[len(before) :].partition("/")[0] in found

        for path, status, link in self._files(folder, is_known):
            name, slash, _ = path[len(before) :].partition("/")
            if (
                path.startswith(before)
                and name not in found
                and (there := self._status(before + name) if slash else status)
            ):
                found[name] = Entry(name, there, "" if slash else link)
        return sorted(found.values(), key=lambda entry: entry.path)

    def file(self, path: str) -> Entry | None:
        """Return a file or link by its path; None when it is none, or would not be kept."""
        return next((Entry(path, status, link) for found, status, link in self._files(path) if found == path), None)

    def _files(
        self, only: str, is_known: Callable[[str], bool] = lambda _folder: False
    ) -> Iterator[tuple[str, os.stat_result, str]]:
        """Yield files and links, with the text of links: what is gathered already comes last, as it moved there."""
        code, staging, _ = self._roots
        gathered = Workspace(staging, Manifest(()), frozenset(), ())
        seen = set()
        for root, workspace in ((code, self._workspace), (staging, gathered)):
            if not root.is_dir():
                continue
            for path, status in unsaved(workspace, only, is_known):
                link = self._link(root, path, status)
                if mode_of(status) and link is not None and path not in seen:
                    seen.add(path)
                    yield path, (self._status(path) or status) if link else status, link

    def _link(self, root: Path, path: str, status: os.stat_result) -> str | None:
        """Return the text of a link; None when it does not lead to something in the work dir."""
        if not stat.S_ISLNK(status.st_mode):
            return ""
        with contextlib.suppress(OSError):
            text = os.readlink(root / path)
            if said_target(path, text) is not None and self._is_inside(root, root / path):
                return text
        return None

    def _status(self, path: str) -> os.stat_result | None:
        for root in self._roots:
            with contextlib.suppress(OSError):
                return (root / path).stat()
        return None

    def open(self, path: str) -> BinaryIO | None:
        """Open a file; None when it is gone, or a link leads out."""
        for root in self._roots:
            with contextlib.suppress(OSError):
                fd = os.open(root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not hold us up
                if stat.S_ISREG(os.fstat(fd).st_mode) and self._is_inside(
                    root, Path(f"/proc/self/fd/{fd}"), root / path
                ):
                    return os.fdopen(fd, "rb", buffering=0)
                os.close(fd)
        return None

    @staticmethod
    def _is_inside(root: Path, *places: Path) -> bool:
        """Whether what was found lies below a root. The first place that this machine knows counts."""
        place = next(place for place in places if os.path.lexists(place))
        return os.path.realpath(place).startswith(f"{os.path.realpath(root)}/")

    def members(self, folder: str) -> list[Member]:
        """Return everything below a folder, to send it. Links that lead out of the folder become the files that they lead to."""
        found = []
        for entry in self.below(folder):
            place = f"{folder}/{entry.path}" if folder else entry.path
            if entry.link and said_target(entry.path, entry.link) is None:
                if (there := self._status(place)) and stat.S_ISREG(there.st_mode):
                    found.append(Member(entry.path, place, there))
                continue
            found.append(Member(entry.path, place, entry.status, entry.link))
        return found
