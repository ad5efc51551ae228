"""Symbolic links below a folder: where they lead, and whether that is still below it.

A link may stay inside by what it says and lead out all the same: `a/../b` is another place where `a` is a link. So whoever
keeps links asks twice: what they say, and what the kernel finds when all is there.
"""

from __future__ import annotations

import os


def is_below(path: str) -> bool:
    """Whether a relative path stays below the folder that it starts from (or is that folder), by what it says."""
    return "\0" not in path and not path.startswith("/") and os.path.normpath(path).partition("/")[0] != ".."


def said_target(path: str, text: str) -> str | None:
    """Where the link `path` says that it leads; None when that is outside.

    Args:
        path: relative to the folder that is not to be left.
        text: what the link holds.
    Returns:
        A path relative to the same folder, in its plain form.
    """
    target = os.path.join(os.path.dirname(path), text)
    return os.path.normpath(target) if text and is_below(target) else None


def found_target(root: str, path: str) -> str | None:
    """Where the kernel gets by `path`, relative to `root`; None when that is not below `root`. It need not exist."""
    place, inside = os.path.realpath(os.path.join(root, path)), os.path.realpath(root).rstrip("/") + "/"
    return place.removeprefix(inside) if place.startswith(inside) else None
