"""Modules that a verb needs a little later, loaded while it waits for another program: for git, say."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable


def load(importing: Callable[[], object]) -> None:
    """Begin to load what a function imports. Whoever calls it then waits for the rest only, and meets whatever is wrong."""
    threading.Thread(target=_load, args=(importing,), name="load-ahead").start()


def _load(importing: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        importing()
