"""Finds the checkpoints that a run begins with: a folder of the outputs of an earlier one, before the run exists."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from orchestrator.data.resources import Resources
from orchestrator.errors import Conflict, InvalidConfig, NotFound, SpellError
from orchestrator.lifecycle.checkpoints import folder_of
from orchestrator.service.access import Access, Who
from orchestrator.spec.mounts import normal_path, path_in_code, relative_parts
from orchestrator.spec.run import RunSpec
from orchestrator.spec.validate import read_spec
from orchestrator.states import ACTIVE, KEEPS_OUTPUTS, State, spoken
from orchestrator.store import ClaimedRun, Store
from orchestrator.store.gc import removed_error


class Resume:
    """Finds checkpoints of one home.

    Args:
        store: of runs.
        access: resolves references.
        resources: finds files and folders.
    """

    def __init__(self, store: Store, access: Access, resources: Resources) -> None:
        self._store, self._access, self._resources = store, access, resources

    def run_of(self, who: Who, reference: str) -> int:
        """The run that a person resumes, named alone or by a folder of its outputs. Raises as `Access.resolve`."""
        parts = relative_parts(reference, "The run to resume")
        return self._access.resolve(who, parts[1] if parts[0] == "runs" and len(parts) > 1 else reference)

    def found(self, who: Who, spec: RunSpec) -> RunSpec:
        """The spec with the canonical path of the folder that it begins with: `7` → `runs/7/checkpoints`.

        Raises:
            NotFound: the run does not exist, or left no checkpoints.
            Conflict: it has not ended, or kept nothing.
            InvalidConfig: a mount of the spec is in the way.
        """
        if not spec.resume:
            return spec
        number = self.run_of(who, spec.resume)
        run = self._store.claimed(number)
        self._check(run)
        _check_free(spec)
        parts = relative_parts(spec.resume, "The run to resume")
        below = "/".join(parts[2:]) if parts[0] == "runs" else ""
        for folder in [below] if below else _folders(spec, run):
            resource = f"runs/{number}/{folder}"
            try:
                path = self._resources.path(resource)
            except NotFound:
                continue
            if not path.is_dir():
                raise InvalidConfig(f"{resource} is a file.", "Name the folder that it lies in.")
            return dataclasses.replace(spec, resume=resource)
        raise self._none(number, (below,) if below else _folders(spec, run))

    def _check(self, run: ClaimedRun) -> None:
        number = run.number
        begin_anew = f"Begin anew: spell rerun {number}"
        if run.state in ACTIVE:
            words = f"Run {number} is still {spoken(run.state)}, so it cannot be resumed."
            cure = f"End it first, with its checkpoints: spell stop {number}\nOr wait for its end: spell wait {number}"
            raise Conflict(words, cure)
        if run.state == State.KILLED:
            raise Conflict(f"Run {number} was killed, so its checkpoints are lost.", begin_anew)
        if run.state not in KEEPS_OUTPUTS:
            words = f"Run {number} never started its command ({spoken(run.state)}), so it has no checkpoints."
            raise Conflict(words, begin_anew)
        self._resources.refuse_archived(f"runs/{number}", "Its checkpoints cannot be used: ")
        if self._store.gc.is_removed(number):
            raise removed_error(number)

    def _none(self, number: int, looked_for: Iterable[str]) -> SpellError:
        names = " or ".join(map(repr, looked_for))
        words = f"Run {number} left no checkpoints: its outputs have no folder {names}."
        cure = f"Begin anew: spell rerun {number}"
        if self._store.record(number).outputs_count:
            another = f"spell resume {number} --checkpoints FOLDER"
            cure += f"\nIf they lie in another folder (spell ls runs/{number}): {another}"
        return NotFound(words.replace("\"'", "'").replace("'\"", "'"), cure)


def _folders(spec: RunSpec, run: ClaimedRun) -> list[str]:
    """Where the checkpoints may lie: where the new run keeps its own, if that was said, else where the earlier one did."""
    theirs = folder_of(read_spec(run.spec))
    return list(dict.fromkeys([folder_of(spec), theirs] if spec.checkpoints else [theirs]))


def _check_free(spec: RunSpec) -> None:
    folder = folder_of(spec)
    for mount in spec.mounts:
        place = path_in_code(spec.code.subdir if spec.code else "", mount.path)
        if place == folder or folder.startswith(f"{place}/"):
            words = f"The mount at {normal_path(mount.path)!r} is in the way of the checkpoints, which belong at {folder!r}."
            raise InvalidConfig(words, "Give it another path: -m RESOURCE:PATH")
