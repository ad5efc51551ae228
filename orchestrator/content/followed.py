"""Lists a folder as a person means it: links that lead out of it, but not out of what it belongs to, are followed.

A snapshot in a cache of Hugging Face is the example: its files are links to `../../blobs/…`. A copy, a mount or an upload
of the snapshot alone has the files themselves. Links inside the folder stay links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orchestrator.content.links import said_target


class Member(NamedTuple):
    """A file, folder or link.

    Attributes:
        path: relative to the folder.
        place: where its bytes are.
        status: of what is there.
        link: the text of a link that stays one, relative where it leads to something in the folder; "" for others.
        is_lost: whether it is a link that leads to nothing, or out of what the folder belongs to.
    """

    path: str
    place: str
    status: os.stat_result
    link: str = ""
    is_lost: bool = False


def followed(folder: Path, bound: Path) -> Iterator[Member]:
    """List everything below a folder, a folder before what is in it.

    Each folder is listed once, so that links cannot multiply it: another link to it leads to the first place.

    Args:
        folder: it may be a link itself.
        bound: the folder out of which no link is followed: the outputs of the run, or the upload.
    """
    return _Walk(os.path.realpath(folder), os.path.realpath(bound)).members()


class _Walk:
    """A walk through one folder.

    Attributes:
        top: the folder; links to what is below it stay links.
        placed: where the folder, and each folder outside it that was followed, is listed, by its real path.
    """

    def __init__(self, top: str, bound: str) -> None:
        self._top, self._bound = top, bound
        self._placed = {top: ""}

    def members(self) -> Iterator[Member]:
        todo = [(self._top, "")]
        while todo:  # no recursion: folders may be nested very deep
            real, below = todo.pop()
            with os.scandir(real) as entries:
                for entry in entries:
                    path = f"{below}/{entry.name}" if below else entry.name
                    member = self._member(path, entry)
                    if stat.S_ISDIR(member.status.st_mode) and not member.link:
                        todo.append((member.place, path))
                    yield member

    def _member(self, path: str, entry: os.DirEntry[str]) -> Member:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return self._linked(path, entry.path, status)
        if stat.S_ISDIR(status.st_mode) and (earlier := self._placed.get(entry.path)) is not None:
            return Member(path, entry.path, status, _relative(path, earlier))  # this one was followed, and it is above
        return Member(path, entry.path, status)

    def _linked(self, path: str, place: str, status: os.stat_result) -> Member:
        text, target = os.readlink(place), os.path.realpath(place)
        try:
            found = os.stat(target)
        except OSError:
            return Member(path, place, status, text, is_lost=True)
        if not _is_in(target, self._bound):
            return Member(path, place, status, text, is_lost=True)
        is_folder = stat.S_ISDIR(found.st_mode)
        there = self._place_of(target)
        if there is not None and (is_folder or _is_in(target, self._top)):
            is_kept = _is_in(place, self._top) and _is_simple(text) and said_target(path, text) is not None
            return Member(path, place, status, text if is_kept else _relative(path, there))
        if is_folder:
            self._placed[target] = path
        return Member(path, target, found)

    def _place_of(self, real: str) -> str | None:
        """Return where a file or folder is listed; None when it is not."""
        above = real
        while _is_in(above, self._bound):
            if (start := self._placed.get(above)) is not None:
                return os.path.join(start, real[len(above) :].strip("/"))
            if above == self._bound:
                break
            above = os.path.dirname(above)
        return None


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_simple(text: str) -> bool:
    """Whether a link's text leads to the same place in a copy: after the name of another link, `..` may not."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    return ".." not in parts[next((at for at, part in enumerate(parts) if part != ".."), len(parts)) :]


def _relative(path: str, target: str) -> str:
    return os.path.relpath(target or ".", os.path.dirname(path) or ".")
