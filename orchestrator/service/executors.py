"""Chooses the executor of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from orchestrator.errors import ExecutorFailed, InvalidConfig
from orchestrator.executors.base import Executor
from orchestrator.lifecycle.context import Context

_AGAIN_S = 24 * 3600.0


class Executors:
    """The executors of one home.

    Args:
        context: has them.
        defaults: names of executors for specs that name none; the first one that lacks nothing is chosen.
    """

    def __init__(self, context: Context, defaults: Sequence[str]) -> None:
        self._executors, self._defaults = context.executors, defaults
        self._told_at: dict[str, float] = {}

    @property
    def default(self) -> str:
        """The executor that a spec without one gets now."""
        for name in self._defaults:
            executor = self._executors[name]
            if executor.is_chosen or not executor.lacks():
                return name
        return self._defaults[-1]

    def usable(self, name: str) -> Executor:
        """An executor that can run commands now.

        Raises:
            InvalidConfig: no executor has this name.
            ExecutorFailed: the executor lacks something.
        """
        executor = self._executors.get(name)
        if executor is None:
            there = ", ".join(sorted(self._executors))
            raise InvalidConfig(f"There is no executor {name!r}.", f"There are: {there}.")
        if lack := executor.lacks():
            others = [other for other in self._defaults if other != name]
            cure = "See what works here: spell doctor" + "".join(f"; or cast it with --executor {o}" for o in others)
            raise ExecutorFailed(f"The {name} executor cannot run anything now: {lack}", cure)
        return executor

    def passed_over(self, taken: str) -> Iterator[str]:
        """The warning that a preferred executor is not used, once a day; empty if the person need not know."""
        for name in self._defaults[: self._defaults.index(taken)]:
            executor, now = self._executors[name], time.monotonic()
            if executor.is_expected and (lack := executor.lacks()):
                words = f"This run does not go to the {name} executor: {lack}"
                if now - self._told_at.get(words, -_AGAIN_S) >= _AGAIN_S:
                    self._told_at[words] = now
                    yield f"{words} See: spell doctor (this is said once a day)"
