"""Finds the files of a folder that is no git repository, or of a repository without commits: all that a run may need.

Git lists them, with a git dir of our own where the folder has none, so that `.gitignore` means what it means elsewhere. A
repository inside the folder gives its files as it knows them. Not among them, unless `.spellignore` asks for them by
`!PATTERN`: virtual environments, caches, homes of spell, and files of secrets; and never the file that this command
prints to. The folder is only read.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.capture import patterns
from orchestrator.capture.git import Git, finish
from orchestrator.content.manifest import special_kind
from orchestrator.content.scratch import Scratch
from orchestrator.errors import InvalidRepository

_LONGEST_S = 30.0
_HIDDEN = "/.*"
# A folder is known by a file in it: https://docs.python.org/3/library/venv.html, https://bford.info/cachedir,
# a conda environment, a home of spell.
_TOLD_BY = rb"(?s)(?:(.*)/)?(pyvenv\.cfg|CACHEDIR\.TAG|conda-meta/history|store/spell\.db)\Z"


class Listing(NamedTuple):
    """The files of a folder.

    Attributes:
        root: the folder, or the root of its repository.
        subdir: the folder from which a run starts, relative to the root; empty for the root itself.
        files: their status by path.
        secrets: files that are left out because their names say that they hold secrets.
        special: sockets and the like, which are left out.
    """

    root: Path
    subdir: bytes
    files: dict[bytes, os.stat_result]
    secrets: tuple[str, ...]
    special: tuple[str, ...]

    @property
    def total_bytes(self) -> int:
        """The size of all files in bytes."""
        return sum(status.st_size for status in self.files.values())

    def biggest(self, count: int) -> list[tuple[int, str]]:
        """The biggest files and folders at the top: their sizes in bytes, and names."""
        sizes: dict[bytes, int] = {}
        for path, status in self.files.items():
            top = path.partition(b"/")[0]
            sizes[top] = sizes.get(top, 0) + status.st_size
        ordered = sorted(((size, os.fsdecode(top)) for top, size in sizes.items()), reverse=True)
        return ordered[:count]


def look(
    root: Path,
    subdir: bytes = b"",
    *,
    has_git: bool = False,
    ignore: Sequence[str] = (),
    without: Iterable[Path] = (),
    hidden: bool = True,
) -> Listing:
    """Find the files of a folder.

    Args:
        has_git: whether it is a repository; what is in its index is sent in any case.
        ignore: patterns of its `.spellignore`.
        without: folders that are not sent, such as the home of spell.
        hidden: whether to send files and folders at its top whose names begin with a dot.

    Raises:
        InvalidRepository: it cannot be listed, or not within half a minute.
    """
    always = [*patterns.NEVER, *([] if hidden else [_HIDDEN]), *_below(root, without)]
    with Scratch() as scratch:
        outer = Git(root) if has_git else Git(root, git_dir=_empty_git_dir(scratch))

        def listed(more: Iterable[bytes] = ()) -> list[bytes]:
            rules = [*always, *map(patterns.exactly, more), *ignore]
            return list(_listed(outer, b"", rules, with_index=has_git))

        paths = listed()
        apart = {*_told(paths), *(path for path in paths if patterns.is_secret(os.fsdecode(path)))}
        if apart:
            paths = listed(apart) if patterns.has_exceptions(ignore) else [*_without(paths, apart)]
    there = frozenset(paths)
    secrets = tuple(sorted(os.fsdecode(path) for path in apart if not path.endswith(b"/") and path not in there))
    files, special = _statuses(os.fsencode(root), paths)
    return Listing(root, subdir, files, secrets, special)


def _empty_git_dir(scratch: Path) -> Path:
    """A git dir without anything in it, which takes git 10 ms to make."""
    for name in ("objects", "refs"):
        (scratch / name).mkdir()
    (scratch / "HEAD").write_text("ref: refs/heads/none\n")
    return scratch


def _below(root: Path, folders: Iterable[Path]) -> Iterator[str]:
    for folder in folders:
        place = os.path.realpath(folder)
        if place.startswith(f"{os.path.realpath(root)}/"):
            yield patterns.exactly(os.fsencode(os.path.relpath(place, os.path.realpath(root))) + b"/")


def _listed(git: Git, prefix: bytes, rules: Sequence[str], *, with_index: bool) -> Iterator[bytes]:
    """Yield the paths of the files, those of repositories inside included."""
    kinds = ("--cached", "--others") if with_index else ("--others",)
    process = git.start("ls-files", "-z", *kinds, "--exclude-standard", *patterns.options(rules, prefix))
    try:
        out = finish(process, "ls-files", limit_s=_LONGEST_S)
    except subprocess.TimeoutExpired as error:
        words = f"The files of {str(git.cwd)!r} cannot be listed within {_LONGEST_S:g} s."
        raise InvalidRepository(words, "Change into a smaller folder, or leave out big ones (.spellignore).") from error
    root = os.fsencode(git.cwd) + b"/"
    for path in dict.fromkeys(out.split(b"\0")[:-1]):  # a file in conflict has several entries
        if path.endswith(b"/") or (with_index and stat.S_ISDIR(_mode(root + path))):
            inner = path.rstrip(b"/") + b"/"
            if os.path.exists(root + inner + b".git"):
                git_there = Git(Path(os.fsdecode(root + inner)))
                yield from (inner + name for name in _listed(git_there, prefix + inner, rules, with_index=True))
        else:
            yield path


def _mode(path: bytes) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0  # it is gone, which is seen once more


def _told(paths: Sequence[bytes]) -> set[bytes]:
    """The folders that say what they are."""
    found = (re.match(_TOLD_BY, path) for path in paths)
    return {match[1] + b"/" for match in found if match and match[1]}


def _without(paths: Iterable[bytes], apart: set[bytes]) -> Iterator[bytes]:
    folders = tuple(path for path in apart if path.endswith(b"/"))
    return (path for path in paths if path not in apart and not path.startswith(folders))


def _statuses(root: bytes, paths: Iterable[bytes]) -> tuple[dict[bytes, os.stat_result], tuple[str, ...]]:
    found: dict[bytes, os.stat_result] = {}
    special: list[str] = []
    ours = {*_outputs()}
    for path in paths:
        try:
            status = os.lstat(root + b"/" + path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            words = f"{path.decode(errors='replace')!r} cannot be read: {error.strerror}."
            raise InvalidRepository(words, "Change its permissions, or leave it out (.spellignore).") from error
        if (status.st_dev, status.st_ino) in ours:
            continue
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            found[path] = status
        elif not stat.S_ISDIR(status.st_mode):
            special.append(f"{path.decode(errors='replace')} ({special_kind(status)})")
    return found, tuple(special)


def _outputs() -> Iterator[tuple[int, int]]:
    """Device and inode of the files that this command prints to (`spell run … > log.txt`): they grow while they are read."""
    for number in (1, 2):
        with contextlib.suppress(OSError):  # it is closed
            status = os.fstat(number)
            yield status.st_dev, status.st_ino
