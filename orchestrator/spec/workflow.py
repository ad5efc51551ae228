"""Workflows: steps, each a run, that need each other. Frozen and checked, as `spec.run.RunSpec` is.

A step may mount outputs of another step's run: the resource then begins with `runs/${STEP}` instead of a number.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from orchestrator.errors import InvalidConfig
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import RunSpec

STEP_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}\Z")
MAX_STEPS = 1000
_RESERVED_NAMES = frozenset({"latest"})
_MOST_NAME = 200
_REFERENCE = re.compile(r"runs/\$\{([^/}]*)\}(?=/|\Z)")


def check_step_name(name: str) -> str:
    """`name`, if a step may have it.

    Raises:
        InvalidConfig: it may not.
    """
    if not STEP_NAME.match(name):
        raise InvalidConfig(
            f"A step cannot be called {name!r}.", "A name starts with a letter; letters, digits, '_' and '-', up to 63."
        )
    return name


def check_workflow_name(name: str) -> str:
    """`name`, if a workflow may have it: one line of text that is not a number.

    Raises:
        InvalidConfig: it may not.
    """
    wrong = not name.strip() or len(name) > _MOST_NAME or name.isdecimal() or "/" in name or not name.isprintable()
    if wrong or name in _RESERVED_NAMES:
        raise InvalidConfig(
            f"A workflow cannot be called {name!r}.",
            "A name is a line of text without '/', not a number, not 'latest'.",
        )
    return name


def reference(step: str) -> str:
    """The resource of the run of a step."""
    return f"runs/${{{step}}}"


def is_reference(resource: str) -> bool:
    """Whether a resource belongs to the run of a step."""
    return bool(_REFERENCE.match(resource))


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a workflow.

    Attributes:
        name: its name in the workflow.
        spec: the spec of its run; mounts may refer to other steps.
        needs: more steps that must be complete before it than those that it mounts.
    """

    name: str
    spec: RunSpec
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_step_name(self.name)

    @property
    def all_needs(self) -> tuple[str, ...]:
        """The steps that must be complete before it, each once."""
        found = [_REFERENCE.match(mount.resource) for mount in self.spec.mounts]
        return tuple(dict.fromkeys([*self.needs, *(item[1] for item in found if item)]))


@dataclass(frozen=True, slots=True)
class WorkflowSpec:
    """A request for one workflow.

    Attributes:
        name: for people; several workflows may have the same.
        steps: their names differ, and they do not need each other in a circle.
        reuse: whether a step takes an identical complete run instead of casting a new one.
    """

    name: str
    steps: tuple[Step, ...]
    reuse: bool = True

    def __post_init__(self) -> None:
        check_workflow_name(self.name)
        if not 0 < len(self.steps) <= MAX_STEPS:
            raise InvalidConfig(f"A workflow must have at least one step, and at most {MAX_STEPS}.")
        names = [step.name for step in self.steps]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise InvalidConfig(f"Two steps are called {twice!r}.")
        for step in self.steps:
            if unknown := next((name for name in step.all_needs if name not in names), ""):
                words = f"Step {step.name!r} needs {unknown!r}, which is not a step of the workflow."
                raise InvalidConfig(words, f"The steps are: {', '.join(names)}.")
        self._check_order()

    def _check_order(self) -> None:
        try:
            TopologicalSorter({step.name: step.all_needs for step in self.steps}).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1]
            words = f"Step {circle[0]!r} needs itself"
            between = f", by way of {', '.join(reversed(circle[1:-1]))}" if circle[1:-1] else ""
            raise InvalidConfig(
                f"{words}{between}.", "Steps that need each other in a circle could never start."
            ) from None


def filled(spec: RunSpec, numbers: Mapping[str, int]) -> RunSpec:
    """The spec of a step, with numbers of runs in its mounts.

    Args:
        numbers: the run of each step that it needs.
    """
    mounts = (Mount(_REFERENCE.sub(lambda found: f"runs/{numbers[found[1]]}", m.resource), m.path) for m in spec.mounts)
    return dataclasses.replace(spec, mounts=tuple(mounts))
