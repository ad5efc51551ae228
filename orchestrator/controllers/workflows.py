"""Casts the steps of workflows: each when the steps that it needs are complete. All state is in the store."""

from __future__ import annotations

import contextlib

from orchestrator.errors import Conflict, DiskFull, ExecutorFailed, SpellError, StoreBusy
from orchestrator.service import OWNER, Service
from orchestrator.spec.validate import read_spec
from orchestrator.spec.workflow import filled
from orchestrator.states import FINAL, State, StepState, StopRequest
from orchestrator.store import Store
from orchestrator.store.workflows import StoredStep, StoredWorkflow

_OPEN = frozenset({StepState.WAITING, StepState.CAST})
_LOST = {StepState.FAILED: "did not complete", StepState.SKIPPED: "was skipped"}


class WorkflowController:
    """Casts the steps of all workflows of a home, each exactly once.

    Args:
        store: of workflows and runs.
        service: casts runs as the owner of the home.
    """

    def __init__(self, store: Store, service: Service) -> None:
        self._store, self._service = store.workflows, service

    def advance(self) -> None:
        """Do what can be done now for each workflow. May be called at any time; the next server continues."""
        errors: list[Exception] = []
        for number in self._store.running():
            try:
                while self._lead(self._store.stored(number)):
                    pass
            except Exception as error:  # the other workflows continue
                errors.append(error)
        if errors:
            raise ExceptionGroup("workflows that wait", errors)

    def _lead(self, workflow: StoredWorkflow) -> bool:
        """Move each step as far as it can go now. Returns whether there may be more to do."""
        moved, errors = [], []
        for step in workflow.steps.values():
            try:
                moved.append(self._lead_step(workflow, step))
            except (DiskFull, StoreBusy, ExecutorFailed) as error:  # steps that do not need this one continue
                errors.append(error)
        if errors and not any(moved):
            raise errors[0]
        states = {step.state for step in workflow.steps.values()}
        if not any(moved) and not states & _OPEN:
            self._store.end(workflow.number)
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
                self._store.settle(workflow.number, step.name, step.state, StepState.SKIPPED, words)
                return True
        if any(state in _OPEN for state in states.values()):
            return False
        self._cast_step(workflow, step)
        return True

    def _lead_run(self, workflow: StoredWorkflow, step: StoredStep) -> bool:
        if step.run_state in FINAL:
            state = StepState.COMPLETE if step.run_state == State.COMPLETE else StepState.FAILED
            self._store.settle(workflow.number, step.name, step.state, state)
            return True
        if workflow.stop_request and step.run_stop_request not in (workflow.stop_request, StopRequest.KILL):
            with contextlib.suppress(Conflict):  # the workflow has just ended
                self._service.runs.request_stop(OWNER, str(step.run), workflow.stop_request)
        return False

    def _cast_step(self, workflow: StoredWorkflow, step: StoredStep) -> None:
        number, name = workflow.number, step.name
        numbers = {need: run for need in step.needs if (run := workflow.steps[need].run)}
        try:
            spec = filled(read_spec(self._store.step_spec(number, name)), numbers)
            cast = self._service.runs.cast(
                OWNER,
                spec,
                reuse=workflow.reuse,
                with_run=lambda connection, run: self._store.cast(connection, number, name, run),
            )
            if cast.reused:
                self._store.reuse(number, name, cast.number)
        except StoreBusy:
            raise  # the next pass tries again
        except (DiskFull, ExecutorFailed) as error:  # both pass: a step must not fail for them
            self._store.settle(number, name, StepState.WAITING, StepState.WAITING, f"it waits: {error.message}")
            raise
        except SpellError as error:
            words = error.whole
            self._store.settle(number, name, StepState.WAITING, StepState.FAILED, words)
