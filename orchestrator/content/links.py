"""Symbolic links below a folder: where they lead, and whether that is still below it.

The text of a link may stay inside although the link leads out: `a/../b` is another place if `a` is a link. So every caller
checks a link twice: by its text, and by what the kernel finds when all files exist.
"""

from __future__ import annotations

import os


def is_below(path: str) -> bool:
    """Whether a relative path, by its text, stays below the folder that it starts from, or is that folder."""
    return "\0" not in path and not path.startswith("/") and os.path.normpath(path).partition("/")[0] != ".."


def said_target(path: str, text: str) -> str | None:
    """Return where the link `path` leads by its text; None when that is outside.

    Args:
        path: relative to the folder that a link must not leave.
        text: the text of the link.
    Returns:
        A path relative to the same folder, in its normal form.
    """
    target = os.path.join(os.path.dirname(path), text)
    return os.path.normpath(target) if text and is_below(target) else None


def found_target(root: str, path: str) -> str | None:
    """Return where the kernel finds `path`, relative to `root`; None when outside. The target need not exist."""
    place, inside = os.path.realpath(os.path.join(root, path)), os.path.realpath(root).rstrip("/") + "/"
    return place.removeprefix(inside) if place.startswith(inside) else None
