"""Files on the disk, whatever a run made of them: walk a folder, hash a file, remove a tree."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.errors import SaveFailed

_CHUNK_BYTES = 1 << 20


def below(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below a folder, by relative path; without recursion, as a run may nest folders as deep as it likes."""
    todo = [""]
    while todo:
        below = todo.pop()
        for entry in os.scandir(root / below):
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                todo.append(path)
            yield path, entry.stat(follow_symlinks=False)


def sizes_below(root: Path) -> Iterator[os.stat_result]:
    """What is known of every file below a folder, for whoever adds up sizes: what vanishes meanwhile is left out."""
    todo = [str(root)]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        yield entry.stat(follow_symlinks=False)


def sha256(path: Path, cancelled: Callable[[], bool] = lambda: False, *, durably: bool = False) -> str | None:
    """The SHA-256 of a file's bytes; of a link, of the text it holds. None when `cancelled` said yes on the way.

    Args:
        durably: also see to it that the file is on the disk, and not only in the kernel's memory.
    """
    if path.is_symlink():
        return hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()
    hashing = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hashing.update(chunk)
            if cancelled():
                return None
        if durably:
            os.fsync(file.fileno())
    return hashing.hexdigest()


def remove_tree(path: Path) -> None:
    """Remove a folder that a run left, whatever modes and depth it has. No error when it is not there.

    Raises:
        SaveFailed: when something of it cannot be removed.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        with contextlib.suppress(OSError):
            _open_folders(path)
        # find and rm walk with descriptors: neither modes nor depth nor long paths stop them
        if _rm(path):
            words = ["find", str(path), "-type", "d", "-execdir", "chmod", "u+rwx", "{}", ";"]  # before it looks inside
            subprocess.run(words, check=False, capture_output=True, env={"PATH": "/usr/bin:/bin"})
            if complaint := _rm(path):
                raise SaveFailed(f"{path} cannot be removed: {complaint}") from None


def _open_folders(root: Path) -> None:
    """Let us remove what lies in each folder. The modes of files stay: they may be those of another run's, too."""
    todo = [] if root.is_symlink() else [str(root)]
    while todo:
        folder = todo.pop()
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            todo += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def _rm(path: Path) -> str:
    """Remove all of it. Returns why that failed, or ""."""
    done = subprocess.run(["rm", "-rf", "--", str(path)], check=False, capture_output=True, text=True)
    return (done.stderr.strip() or "no reason was given") if done.returncode else ""
