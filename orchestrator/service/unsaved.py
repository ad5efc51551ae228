"""Finds the files of runs that have not ended, for those who list and read resources."""

from __future__ import annotations

from orchestrator.content.manifest import actual
from orchestrator.data.unsaved import Unsaved
from orchestrator.errors import Conflict
from orchestrator.lifecycle.context import Context
from orchestrator.lifecycle.workdir import WorkDir
from orchestrator.spec.validate import read_spec
from orchestrator.states import ACTIVE, State, spoken

_NOT_BEGUN = (State.MACHINE_REQUESTED, State.BUILDING, State.MOUNTING)


class UnsavedFiles:
    """The files of active runs of one home."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def numbers(self) -> list[int]:
        """The active runs that have begun and have no outputs yet."""
        found = [self._context.store.claimed(number) for number in self._context.store.led()]
        return [run.number for run in found if run.state not in _NOT_BEGUN and not self.is_final(run.number)]

    def is_final(self, number: int) -> bool:
        """Whether the outputs of a run are saved."""
        return self._context.home.run_dir(number).exists()

    def of(self, canonical: str) -> tuple[int, Unsaved, str] | None:
        """The number of an active run, its files so far, and the path in them that a resource names. None for other resources.

        Raises:
            Conflict: its command has not begun.
        """
        kind, _, rest = canonical.partition("/")
        name, _, below = rest.partition("/")
        if kind != "runs" or not name.isdecimal() or self.is_final(number := int(name)):
            return None
        store = self._context.store
        run = store.claimed(number)
        if run.state not in ACTIVE:
            return None
        has_left = run.state == State.MACHINE_REQUESTED and store.attempts.count(number)  # between two attempts
        if run.state in _NOT_BEGUN and not has_left:
            words = (
                f"Run {number} has not begun: it is {spoken(run.state)}. Its files can be seen when its command runs."
            )
            raise Conflict(words, f"Wait for it: spell wait {number}")
        return number, WorkDir(self._context, run, read_spec(run.spec)).unsaved(), actual(below)
