"""The checkpoints of a run: where they lie, and how a run gets those of an earlier one.

They are copied, never linked: the earlier run's files are sealed, and the command may write to its own. Where the file
system can, a copy shares its bytes until one of both is written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from orchestrator.content.files import copy_bytes, remove_tree
from orchestrator.content.followed import followed
from orchestrator.errors import CodeFailed
from orchestrator.runtime import CHECKPOINTS
from orchestrator.spec.mounts import path_in_code
from orchestrator.spec.run import RunSpec


def folder_of(spec: RunSpec) -> str:
    """The folder of a run's checkpoints, relative to the root of its code."""
    if not spec.checkpoints:
        return CHECKPOINTS
    return path_in_code(spec.code.subdir if spec.code else "", spec.checkpoints)


def bring(source: Path, bound: Path, code: Path, folder: str, cancelled: Callable[[], bool]) -> tuple[int, int]:
    """Copy the checkpoints of an earlier run into a work dir, over what the code has there.

    Folders get the time of their newest file, because some programs take the newest folder, and those of outputs were made
    when the run ended.

    Args:
        source: the folder to copy.
        bound: the outputs that it belongs to; links out of it are followed inside these.
        code: the root of the code.
        folder: where they belong, relative to `code`.
        cancelled: called for each file.

    Returns:
        How many files were copied, and their bytes.

    Raises:
        CodeFailed: when a link of the code leads out of it.
        OSError: when a file cannot be copied.
    """
    target = code / folder
    if target.is_symlink():
        target.unlink()
    if not target.resolve().is_relative_to(code.resolve()):
        raise CodeFailed(f"{folder!r} leads out of the code through a link")
    target.mkdir(parents=True, exist_ok=True)
    files = size = 0
    times: dict[str, float] = {}
    for item in followed(source, bound):
        if cancelled() or item.is_lost:
            continue
        place = target / item.path
        is_folder = stat.S_ISDIR(item.status.st_mode) and not item.link
        if place.is_symlink() or (place.exists() and not (is_folder and place.is_dir())):
            _remove(place)
        if item.link:
            place.symlink_to(item.link)
        elif is_folder:
            place.mkdir(exist_ok=True)
            times.setdefault(item.path, 0.0)
        elif stat.S_ISREG(item.status.st_mode):
            copy_bytes(Path(item.place), place)
            place.chmod(0o755 if item.status.st_mode & stat.S_IXUSR else 0o644)
            os.utime(place, ns=(item.status.st_atime_ns, item.status.st_mtime_ns))
            files, size = files + 1, size + item.status.st_size
            above = os.path.dirname(item.path)
            while above:
                times[above] = max(times.get(above, 0.0), item.status.st_mtime)
                above = os.path.dirname(above)
    for path, at in times.items():
        if at:
            os.utime(target / path, (at, at))
    return files, size


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        remove_tree(place)
    else:
        place.unlink()
