"""Workflows: cast, listed, inspected, stopped. `controllers/workflows` casts their steps."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from orchestrator.errors import SpellError
from orchestrator.records.workflows import WorkflowCastRecord, WorkflowRecord, WorkflowSummary
from orchestrator.service.access import Access, Who
from orchestrator.service.runs import Runs
from orchestrator.spec.workflow import Step, WorkflowSpec, is_reference
from orchestrator.states import StopRequest
from orchestrator.store import CastBefore, Store


class Workflows:
    """The workflows of one home.

    Args:
        store: of workflows.
        access: resolves references.
        runs: checks the specs of steps.
        wake: wakes the controllers' loop.
    """

    def __init__(self, store: Store, access: Access, runs: Runs, wake: Callable[[], None]) -> None:
        self._store, self._access, self._runs, self._wake = store.workflows, access, runs, wake

    def cast(self, who: Who, spec: WorkflowSpec, *, key: str = "") -> WorkflowCastRecord:
        """Record a workflow and begin it. Everything that can be checked is checked now, before any run exists.

        Args:
            key: of the request. One with the key of an earlier request casts nothing, and gets that workflow.

        Raises:
            SpellError: as `Runs.cast`, with the name of the step.
        """

        def mountable(resource: str) -> str:
            return resource if is_reference(resource) else self._access.mountable(who, resource)

        steps: list[Step] = []
        warnings: dict[str, None] = {}  # each once, in their order
        for step in spec.steps:
            with _named(step.name):
                new, found = self._runs.check(who, step.spec, mountable)
            # the executor is chosen now: if it cannot run anything later, the step waits for it
            steps.append(dataclasses.replace(step, spec=dataclasses.replace(new.spec, executor=new.executor)))
            warnings |= dict.fromkeys(found)
        try:
            number = self._store.add(dataclasses.replace(spec, steps=tuple(steps)), key)
        except CastBefore as before:
            number = before.number
        self._wake()
        return WorkflowCastRecord(number, list(warnings))

    def list(self, who: Who, *, limit: int, before: int) -> list[WorkflowSummary]:
        """The newest `limit` workflows before number `before`, newest last."""
        return self._store.summaries(limit=limit, before=before)

    def get(self, who: Who, reference: str) -> WorkflowRecord:
        """The whole record of a workflow, by number, name or `latest`."""
        return self._store.record(self._access.resolve_workflow(who, reference))

    def request_stop(self, who: Who, reference: str, request: StopRequest) -> WorkflowRecord:
        """Stop or kill a workflow: no further step starts, and running steps are stopped or killed. Raises as the store."""
        number = self._access.resolve_workflow(who, reference)
        self._store.request_stop(number, request)
        self._wake()
        return self._store.record(number)


@contextlib.contextmanager
def _named(step: str) -> Iterator[None]:
    try:
        yield
    except SpellError as error:
        raise type(error)(f"Step {step!r}: {error.message}", error.cure) from error
