"""Notes which files of trackers are in the work dir before the command: what they hold is not of the run.

They are part of the code, or checkpoints of an earlier run. The note is the file `begun` of the attempt, so that a server
which was started later knows it too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from orchestrator.formats import csv_log
from orchestrator.home import Home
from orchestrator.telemetry.trackers import places, search

MOST_FILES = 5000
_BLOCK = 1 << 20


def note(home: Home, number: int, attempt: int) -> None:
    """Note the files that are there, just before the command of an attempt is started."""
    root = home.work_dir(number) / "code"
    found: dict[str, tuple[int, int]] = {}
    for path, kind in search.files(root):
        status = places.status(root, path)
        if status and kind != search.DATABASE and len(found) < MOST_FILES:  # the rows of a database have times
            found[path] = (status.st_ino, _end(root, path, kind, status.st_size))
    begun = home.begun(number, attempt)
    new = begun.with_name(f"{begun.name}.new")
    new.write_text(json.dumps(found) if found else "")
    os.replace(new, begun)


def noted(begun: Path) -> Mapping[str, tuple[int, int]]:
    """Return inode and position of the files that were there, by path."""
    text = begun.read_text()
    return {path: (inode, position) for path, (inode, position) in json.loads(text or "{}").items()}


def _end(root: Path, path: str, kind: str, size: int) -> int:
    """Return the position of the reader at the end of a file: see `readers`."""
    if kind == search.MLFLOW_PARAMETER:
        return 1
    if kind != search.LIGHTNING:
        return size
    try:
        with places.opened(root, path) as file:
            _, start = csv_log.columns(file)
            file.seek(start)
            return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))
    except OSError:
        return 0
