"""Finds files of this machine that a command names, but that its run will not have, and says why."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from orchestrator.capture.git import Git
from orchestrator.capture.patterns import is_secret

_MOST_WORDS = 1000


def missing_words(command: str, cwd: Path, subdir: str, captured: Iterable[str], known: Iterable[str]) -> list[str]:
    """The paths in a command that exist in its folder and are not in the snapshot.

    Args:
        command: as it was typed; `--data=x` names `x`.
        cwd: the current folder.
        subdir: that folder, relative to the root of the code.
        captured: the files of the snapshot.
        known: paths to leave out: mounts, and files and folders that have a warning already; relative to `cwd`.
    """
    prefix = f"{subdir}/" if subdir else ""
    there = {path.removeprefix(prefix) for path in captured if path.startswith(prefix)}
    there |= {path.rstrip("/") for path in known}
    there |= {path[:at] for path in there for at, char in enumerate(path) if char == "/"}
    found = []
    for word in dict.fromkeys(_words(command)):
        path = os.path.normpath(word)
        if (
            path in there
            or any(parent in known for parent in _above(path))
            or path == "."
            or path.startswith(("/", ".."))
        ):
            continue
        if os.path.lexists(cwd / path) and not _is_through_link(cwd, path, there):
            found.append(path)
    return found


def why_missing(cwd: Path, paths: Sequence[str], *, is_repository: bool = True) -> Iterator[tuple[str, str]]:
    """Yield what is said of each path that `missing_words` found, and what to do. Asks git which of them it ignores."""
    links = {path: next((part for part in _above(path) if os.path.islink(cwd / part)), "") for path in paths}
    asked = [path for path in paths if not links[path]]
    ignored = _ignored(cwd, asked) if asked and is_repository else frozenset()
    for path in paths:
        if link := links[path]:
            is_absolute = os.readlink(cwd / link).startswith("/")
            who = "a run in a container" if is_absolute else "the run"  # a process finds the same path
            yield (
                f"it lies behind the link {link!r}, which leads elsewhere: {who} will not have it.",
                _mounted(path, "U"),
            )
        else:
            found = _why(cwd / path, path, is_ignored=path in ignored)
            why, cure = found if is_repository else _why_of_folder(cwd / path, path)
            yield f"{why}: the run will not have it, unless it makes it itself.", cure


def _why(place: Path, path: str, *, is_ignored: bool) -> tuple[str, str]:
    if is_ignored and is_secret(path):
        return "git ignores it", "Give its values as secrets: spell secret set NAME, then spell run --secret NAME"
    if is_ignored:
        return "git ignores it", f"Send it with `git add -f`, or {_mounted(path)}"
    if not place.is_dir():
        return "git does not track it", f"Send it with `git add`, or {_mounted(path)}"
    if any(place.iterdir()):
        return "git tracks nothing in it", f"Send it with `git add -f`, or {_mounted(path)}"
    return "git keeps no empty folders", "Let the command make it: mkdir -p"


def _why_of_folder(place: Path, path: str) -> tuple[str, str]:
    if is_secret(path):
        return "its name is that of secrets", "Give a run its values with --env-file or --secret"
    if place.is_dir() and not any(place.iterdir()):
        return "an empty folder is not sent", "Let the command make it: mkdir -p"
    return "it is left out", f"Send it by a line !PATTERN in .spellignore, or {_mounted(path)}"


def _mounted(path: str, first: str = "u") -> str:
    return f"{first}pload it once and mount it: spell upload {shlex.quote(path)}"


def _above(path: str) -> list[str]:
    return [path[:at] for at, char in enumerate(path) if char == "/"]


def _is_through_link(cwd: Path, path: str, there: set[str]) -> bool:
    """Whether a path leads through a link of the snapshot to something that is in the snapshot, too."""
    if not any(os.path.islink(cwd / part) for part in (*_above(path), path)):
        return False
    return os.path.relpath(os.path.realpath(cwd / path), os.path.realpath(cwd)) in there


def _ignored(cwd: Path, paths: Sequence[str]) -> frozenset[str]:
    done = Git(cwd).run("check-ignore", "-z", "--stdin", stdin=b"".join(os.fsencode(path) + b"\0" for path in paths))
    return frozenset(os.fsdecode(path) for path in done.out.split(b"\0") if path)


def _words(command: str) -> Iterator[str]:
    try:
        words = shlex.split(command, comments=False)
    except ValueError:  # only a shell can read its quotes
        words = command.split()
    for word in words[:_MOST_WORDS]:
        for part in re.split(r"[=\s;|&<>()]+", word):
            if part and len(part) < 4096 and "\0" not in part:
                yield part
