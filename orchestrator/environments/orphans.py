"""Removes what a build or a compilation leaves when its server is killed: a folder, and the programs at work in it.

Folders are named after the key of the environment, so that they are removed under its lock. The running process or
container is recorded in the folder.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.content.files import remove_tree
from orchestrator.engine import Engine
from orchestrator.environments.host import end_noted
from orchestrator.errors import SaveFailed, SpellError

BUILDING = ".building-"
COMPILING = ".compiling-"
REMOVED = ".removed-"
PROCESS_FILE = "uv.json"
CONTAINERS = ".containers"
"""A folder in that of all environments, to which containers may write: their builds, and the cache of their uv.

Both are in one folder because hard links need one mount. A container sees no published environment but its own.
"""


def build_folders(environments: Path) -> Iterator[Path]:
    """Yield the folders in which builds make their folders."""
    yield environments
    yield environments / CONTAINERS


def discard(folder: Path, engine: Engine | None = None) -> None:
    """Remove a build, and end the programs that a killed server may have left at work in it."""
    if folder.parent.name != CONTAINERS:  # in CONTAINERS, a container may have written anything into it
        end_process_of(folder / PROCESS_FILE, engine)
    remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder, whatever modes a build gave to its files. The next start tries again what could not be removed."""
    with suppress(SaveFailed):
        remove_tree(folder)


def end_process_of(process_file: Path, engine: Engine | None = None) -> None:
    """End the process or container that a killed server left, if the file still names it."""
    noted = _noted(process_file)
    container = str(noted.get("container", ""))
    if not container:
        end_noted(noted)
    elif engine is not None and not engine.lacks():
        with suppress(SpellError):  # it ended with its server, or a later sweep removes it
            engine.remove(container)


def names_container(folder: Path) -> bool:
    """Whether an orphan's process file names a container, so that discarding it may have to wait for the engine."""
    return "container" in _noted(folder / PROCESS_FILE)


def _noted(process_file: Path) -> dict[str, Any]:
    try:
        noted = json.loads(process_file.read_text())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def replace_environment(path: Path, new: Path) -> None:
    """Put a new environment in the place of an old one, if there is one. The caller holds its lock."""
    aside = Path(tempfile.mkdtemp(prefix=f"{REMOVED}{path.name}-", dir=path.parent))
    with suppress(FileNotFoundError):
        os.rename(path, aside / path.name)
    os.rename(new, path)
    remove(aside)


def remove_environment(path: Path, is_wanted: Callable[[Path], bool] = lambda _: False) -> bool:
    """Remove a published environment. It is renamed first, so that no reader finds half of it. The caller holds its lock.

    Args:
        path: the environment; it need not exist.
        is_wanted: called when no reader can find it any more; True puts it back.
    Returns:
        Whether it was removed.
    """
    aside = Path(tempfile.mkdtemp(prefix=f"{REMOVED}{path.name}-", dir=path.parent))
    try:
        os.rename(path, aside / path.name)
    except FileNotFoundError:
        os.rmdir(aside)
        return False
    wanted = is_wanted(aside / path.name)
    if wanted:
        os.rename(aside / path.name, path)
    remove(aside)
    return not wanted


def key_of_orphan(name: str) -> str:
    """Return the key in the name of a folder that a build has left; "" for any other name."""
    for prefix in (BUILDING, COMPILING, REMOVED):
        if name.startswith(prefix):
            return name.removeprefix(prefix).rpartition("-")[0]
    return ""
