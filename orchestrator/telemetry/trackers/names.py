"""How runs of trackers within one run are told apart: by a prefix of the names of their metrics.

The first one of a tracker has none, so that `loss` is `loss` whatever its folder is called. Event files in several folders
are told apart as TensorBoard does it, by their folders below the one that holds all; times in folder names are left out,
as they would give each run other names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection

_PARTS_OF_DATA = {"train", "training", "val", "valid", "validation", "eval", "evaluation", "test", "dev"}
_TIME = re.compile(r"\d{9,}(\.\d+)?")


def of_folder(folder: str, folders: Collection[str]) -> str:
    """Return the prefix for event files in a folder, when there are event files in `folders`."""
    if len(folders) < 2:
        last = folder.rpartition("/")[2]
        return f"{last}/" if last in _PARTS_OF_DATA else ""
    above = os.path.commonpath([f"/{item}" for item in folders])
    parts = os.path.relpath(f"/{folder}", above).split("/")
    return "".join(f"{part}/" for part in parts if part != "." and not _TIME.fullmatch(part))


def of_run(tracker: str, label: str, sources: Collection[str]) -> str:
    """Return the prefix for another run of a tracker, when there are `sources` already."""
    is_first = not any(source.startswith(f"{tracker}:") for source in sources)
    return "" if is_first else f"{label}/"
