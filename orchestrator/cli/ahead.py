"""Loads modules that a verb needs later, while it waits for another program such as git."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable


def load(importing: Callable[[], object]) -> None:
    """Start to load what a function imports, in a thread. A later call of the function waits for the rest, and raises
    what went wrong."""
    threading.Thread(target=_load, args=(importing,), name="load-ahead").start()


def _load(importing: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        importing()
