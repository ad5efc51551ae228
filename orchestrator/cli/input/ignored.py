"""Finds files of this machine that a command names, but that its run will not have, because git ignores them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

_MOST_WORDS = 1000


def ignored_words(command: str, cwd: Path, subdir: str, captured: Iterable[str], known: Iterable[str]) -> list[str]:
    """The paths in a command that exist in its folder and are not in the snapshot.

    Args:
        command: as it was typed; `--data=x` names `x`.
        cwd: the current folder.
        subdir: that folder, relative to the root of the code.
        captured: the files of the snapshot.
        known: paths to leave out: mounts, and untracked files, which have a warning already; relative to `cwd`.
    """
    prefix = f"{subdir}/" if subdir else ""
    there = {path.removeprefix(prefix) for path in captured if path.startswith(prefix)}
    there |= {path.rstrip("/") for path in known}
    there |= {path[:at] for path in there for at, char in enumerate(path) if char == "/"}
    found = []
    for word in dict.fromkeys(_words(command)):
        path = os.path.normpath(word)
        parents = [path[:at] for at, char in enumerate(path) if char == "/"]
        if path in there or any(parent in known for parent in parents) or path == "." or path.startswith(("/", "..")):
            continue
        if os.path.lexists(cwd / path):
            found.append(path)
    return found


def _words(command: str) -> Iterator[str]:
    try:
        words = shlex.split(command, comments=False)
    except ValueError:  # only a shell can read its quotes
        words = command.split()
    for word in words[:_MOST_WORDS]:
        for part in re.split(r"[=\s;|&<>()]+", word):
            if part and len(part) < 4096 and "\0" not in part:
                yield part
