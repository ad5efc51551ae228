"""Loads modules that a verb needs later, while it waits for another program such as git."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable


def load(importing: Callable[[], object]) -> None:
    """Call a function that imports modules in a thread, and ignore its errors. A later call waits for the rest of the
    imports, and raises their errors."""
    threading.Thread(target=_load, args=(importing,), name="load-ahead").start()


def _load(importing: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        importing()
