"""Leads what is made of several runs (searches, workflows) on: one thread, woken when a run has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.loops import Loop


class Conductor(Loop):
    """Calls each of `advances` at the start, and again after every end of a run.

    Args:
        advances: look at the store and do what can be done now; they keep nothing in memory that a next server would
            miss, and may be called at any time.
    """

    def __init__(self, advances: Sequence[Callable[[], None]]) -> None:
        super().__init__("conductor", *advances)
