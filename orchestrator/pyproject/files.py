"""The files of a snapshot, as text. It notes what was asked for, so that an answer made of it can be checked later."""

from __future__ import annotations

import bisect
import hashlib
import os
import posixpath
from collections.abc import Iterable
from typing import Any

from orchestrator.capture.snapshot import Snapshot
from orchestrator.content.manifest import LINK, Entry
from orchestrator.errors import InvalidConfig
from orchestrator.pyproject.asked import entry_at
from orchestrator.spec.texts import decoded

_MAX_LINKS = 8
_BELOW = "*/"  # marks the question for all files of a name


class CodeFiles:
    """The files of a snapshot.

    Args:
        code: the snapshot.
        root: the folder of this machine whose work tree it is; "" if it is none.
    """

    def __init__(self, code: Snapshot, root: str = "") -> None:
        self._code, self._entries, self.root = code, code.manifest.entries, root
        self.asked: dict[str, str] = {}

    def __contains__(self, path: str) -> bool:
        return self._entry(path) is not None

    def text(self, path: str) -> str:
        """The text of a file.

        Raises:
            InvalidConfig: there is none, or it is no text.
        """
        entry = self._entry(path)
        if entry is None:
            raise InvalidConfig(f"There is no file {path!r} in the code of the run.", "Is it tracked by git?")
        return decoded(self._bytes(entry), path)

    def table(self, path: str) -> dict[str, Any]:
        """The content of a TOML file.

        Raises:
            InvalidConfig: as `text`, or it is no TOML.
        """
        return parsed(self.text(path), path)

    def below(self, folder: str, name: str) -> list[str]:
        """The paths of all files of this name in a folder and below it."""
        found = self._below(folder, name)
        self.asked[f"{folder}{_BELOW}{name}"] = _digest(found)
        return found

    def has_folder(self, folder: str) -> bool:
        """Whether anything lies below this path."""
        start = f"{folder}/" if folder else ""
        at = bisect.bisect_left(self._entries, start, key=lambda entry: entry.path)
        return at < len(self._entries) and self._entries[at].path.startswith(start)

    def is_as(self, asked: dict[str, str]) -> bool:
        """Whether all that was asked of another snapshot has the same answer here."""
        return all(self._answer(question) == answer for question, answer in asked.items())

    def _answer(self, question: str) -> str:
        folder, mark, name = question.partition(_BELOW)
        if mark:
            return _digest(self._below(folder, name))
        entry = self._find(question)
        return entry.digest if entry else ""

    def _below(self, folder: str, name: str) -> list[str]:
        start, end = f"{folder}/" if folder else "", f"/{name}"
        paths = (entry.path for entry in self._entries if entry.path.endswith(name) and entry.mode != LINK)
        return [path for path in paths if path.startswith(start) and f"/{path}".endswith(end)]

    def _entry(self, path: str) -> Entry | None:
        """The regular file at a path, also through links."""
        for _ in range(_MAX_LINKS):
            entry = self._find(path)
            self.asked[path] = entry.digest if entry else ""
            if entry is None or entry.mode != LINK:
                return entry
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), os.fsdecode(self._bytes(entry))))
        return None

    def _find(self, path: str) -> Entry | None:
        return entry_at(self._entries, path)

    def _bytes(self, entry: Entry) -> bytes:
        with self._code.open_blob(entry.digest) as file:
            return file.read()


def parsed(text: str, path: str) -> dict[str, Any]:
    """The content of a TOML file with this text; the path is for the message of the `InvalidConfig` that it may raise."""
    import tomllib  # 3 ms: few runs are not answered from what is remembered

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"{path} cannot be read: {error}.", "Correct it, or leave it out: --no-project") from None


def joined(folder: str, path: str) -> str:
    """A path in a folder of the code; "" is its root. A path that leads out of the code begins with `..`."""
    found = posixpath.normpath(posixpath.join(folder, path))
    return "" if found == "." else found


def _digest(paths: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(paths).encode()).hexdigest()
