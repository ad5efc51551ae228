"""Workflows: steps that are cast when what they need is complete. State is in the store alone; see `Workflows.advance`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from orchestrator.errors import Conflict, DiskFull, ExecutorFailed, SpellError, StoreBusy
from orchestrator.records.workflows import WorkflowCastRecord, WorkflowRecord
from orchestrator.service.runs import Service
from orchestrator.spec.validate import read_spec
from orchestrator.spec.workflow import Step, WorkflowSpec, filled, is_reference
from orchestrator.states import FINAL, State, StepState, StopRequest, WorkflowState
from orchestrator.store.workflows import StoredStep, StoredWorkflow

_OPEN = frozenset({StepState.WAITING, StepState.CAST})
_LOST = {StepState.FAILED: "did not complete", StepState.SKIPPED: "was skipped"}
_ENDS = {None: WorkflowState.FAILED, StopRequest.STOP: WorkflowState.STOPPED, StopRequest.KILL: WorkflowState.KILLED}


class Workflows:
    """Casts the steps of all workflows of a home, each exactly once.

    Args:
        service: casts runs.
        wake: sees to it that `advance` is called soon.
    """

    def __init__(self, service: Service, wake: Callable[[], None]) -> None:
        self._service, self._wake = service, wake
        self.store = service.store.workflows

    def cast(self, spec: WorkflowSpec) -> WorkflowCastRecord:
        """Record a workflow, and begin it. What can be known to be wrong with a step is refused before there is any run.

        Raises:
            SpellError: as `Service.cast`, with the name of the step.
        """
        steps: list[Step] = []
        warnings: dict[str, None] = {}  # each once, in their order
        for step in spec.steps:
            with _named(step.name):
                new, words = self._service.check(step.spec, self._mountable)
            # of the executor that was chosen now: when it cannot run anything later, the step waits for it
            steps.append(dataclasses.replace(step, spec=dataclasses.replace(new.spec, executor=new.executor)))
            warnings |= dict.fromkeys(words)
        number = self.store.add(dataclasses.replace(spec, steps=tuple(steps)))
        self._wake()
        return WorkflowCastRecord(number, list(warnings))

    def request_stop(self, reference: str, request: StopRequest) -> WorkflowRecord:
        """Stop or kill a workflow: steps that wait never start, and the others' runs are asked to end. Raises as the store."""
        number = self.store.find(reference)
        self.store.request_stop(number, request)
        self._wake()
        return self.store.record(number)

    def advance(self) -> None:
        """Do what can be done now for each workflow. May be called at any time; a next server goes on where this one was."""
        errors: list[Exception] = []
        for number in self.store.running():
            try:
                while self._lead(self.store.stored(number)):
                    pass
            except Exception as error:  # the others go on
                errors.append(error)
        if errors:
            raise ExceptionGroup("workflows that wait to be led on", errors)

    def _mountable(self, resource: str) -> str:
        return resource if is_reference(resource) else self._service.resources.mountable(resource)

    def _lead(self, workflow: StoredWorkflow) -> bool:
        """Move each step as far as it goes from here. Returns whether there may be more to do."""
        moved, errors = [], []
        for step in workflow.steps.values():
            try:
                moved.append(self._lead_step(workflow, step))
            except (DiskFull, StoreBusy, ExecutorFailed) as error:  # what does not need this step goes on
                errors.append(error)
        if errors and not any(moved):
            raise errors[0]
        states = {step.state for step in workflow.steps.values()}
        if not any(moved) and not states & _OPEN:
            complete = states == {StepState.COMPLETE}
            self.store.end(workflow.number, WorkflowState.COMPLETE if complete else _ENDS[workflow.stop_request])
        return any(moved)

    def _lead_step(self, workflow: StoredWorkflow, step: StoredStep) -> bool:
        """Returns whether the step has moved."""
        if step.state == StepState.CAST:
            return self._lead_run(workflow, step)
        if step.state != StepState.WAITING:
            return False
        states = {name: workflow.steps[name].state for name in step.needs}
        for name, state in states.items():
            if state in _LOST:
                words = f"it needs {name}, which {_LOST[state]}"
                self.store.settle(workflow.number, step.name, step.state, StepState.SKIPPED, words)
                return True
        if any(state in _OPEN for state in states.values()):
            return False
        self._cast_step(workflow, step)
        return True

    def _lead_run(self, workflow: StoredWorkflow, step: StoredStep) -> bool:
        if step.run_state in FINAL:
            state = StepState.COMPLETE if step.run_state == State.COMPLETE else StepState.FAILED
            self.store.settle(workflow.number, step.name, step.state, state)
            return True
        if workflow.stop_request and step.run_stop_request not in (workflow.stop_request, StopRequest.KILL):
            with contextlib.suppress(Conflict):  # it has just ended
                self._service.request_stop(str(step.run), workflow.stop_request)
        return False

    def _cast_step(self, workflow: StoredWorkflow, step: StoredStep) -> None:
        number, name = workflow.number, step.name
        numbers = {need: run for need in step.needs if (run := workflow.steps[need].run)}
        try:
            spec = filled(read_spec(self.store.step_spec(number, name)), numbers)
            cast = self._service.cast(
                spec,
                reuse=workflow.reuse,
                with_run=lambda connection, run: self.store.cast(connection, number, name, run),
            )
            if cast.reused:
                self.store.reuse(number, name, cast.number)
        except StoreBusy:
            raise  # it is tried again
        except (DiskFull, ExecutorFailed) as error:  # there will be room, an engine again: no step is to fail for that
            self.store.settle(number, name, StepState.WAITING, StepState.WAITING, f"it waits: {error.message}")
            raise
        except SpellError as error:
            words = error.whole
            self.store.settle(number, name, StepState.WAITING, StepState.FAILED, words)


@contextlib.contextmanager
def _named(step: str) -> Iterator[None]:
    try:
        yield
    except SpellError as error:
        raise type(error)(f"Step {step!r}: {error.message}", error.cure) from error
