"""Modules that a verb needs a little later, loaded while it waits for another program: for git, say."""

from __future__ import annotations

import contextlib
import importlib
import threading


def load(name: str) -> None:
    """Begin to load a module. Whoever imports it then waits for the rest only, and meets whatever is wrong with it."""
    threading.Thread(target=_load, args=(name,), name=f"load-{name}").start()


def _load(name: str) -> None:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
