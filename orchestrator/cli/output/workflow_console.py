"""The console of a followed workflow: a line for each state of a step, then how the workflow ended."""

from __future__ import annotations

import sys
import time

import click

from orchestrator.cli.output import show
from orchestrator.cli.output.console import SIGNS
from orchestrator.cli.output.detach import BROKEN_PIPE, INTERRUPTED
from orchestrator.cli.output.spinner import Spinner, TerminalSpinner
from orchestrator.cli.output.streams import close_stdout
from orchestrator.client.workflows import Workflows
from orchestrator.errors import ServerUnavailable
from orchestrator.records.workflows import StepRecord, WorkflowRecord, WorkflowSummary
from orchestrator.states import FINAL, State, StepState, WorkflowState

_LOOK_S = 0.2
_GIVE_UP_S = 60.0
_PHASES = {
    State.MACHINE_REQUESTED: "queued",
    State.BUILDING: "building",
    State.MOUNTING: "building",
    State.RUNNING: "running",
    State.SAVING: "saving",
    State.PUSHING: "saving",
}
_DETACHED = (
    "✨ Your workflow goes on without this terminal.",
    "✨ Use 'spell workflow info -f {number}' to follow it again.",
    "✨ Use 'spell workflow stop {number}' to save outputs and stop it, 'spell workflow kill {number}' to lose them.",
)


def follow(flows: Workflows, found: WorkflowRecord, *, json_: bool) -> int:
    """Show a workflow to its end: as it goes, or as JSON when it has ended.

    Returns:
        The exit code of the command.
    """
    number = found.number
    try:
        if not json_:
            show.say("✨ Stop viewing with ^C")
        console = WorkflowConsole(quiet=json_)
        ended = console.follow(flows, found)
        if json_:
            show.as_json(ended)
        else:
            show_end(ended)
    except KeyboardInterrupt:
        click.echo(err=json_)
        _detached(number, err=json_)
        return INTERRUPTED
    except BrokenPipeError:  # `spell workflow … | head`: the reader has closed the pipe
        close_stdout()
        _detached(number, err=True)
        return BROKEN_PIPE
    return 0 if ended.state == WorkflowState.COMPLETE else 1


class WorkflowConsole:
    """Prints each state of each step once. On a terminal the last line shows the active steps.

    Args:
        quiet: print nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        moving = not quiet and sys.stdout.isatty() and not show.is_dumb()
        self._spinner = TerminalSpinner(sys.stdout) if moving else Spinner()
        self._quiet = quiet
        self._printed: dict[str, str] = {}

    def follow(self, flows: Workflows, found: WorkflowRecord) -> WorkflowRecord:
        """Show a workflow until it has ended, also after a restart of the server.

        Raises:
            ServerUnavailable: if no server answers for a minute.
        """
        deadline = time.monotonic() + _GIVE_UP_S
        try:
            while True:
                self._show(found)
                if found.state != WorkflowState.RUNNING:
                    return found
                time.sleep(_LOOK_S)
                try:
                    found = flows.get(str(found.number))
                    deadline = time.monotonic() + _GIVE_UP_S
                except ServerUnavailable:
                    if time.monotonic() > deadline:
                        raise
        finally:
            self._spinner.clear()

    def _show(self, found: WorkflowRecord) -> None:
        if self._quiet:
            return
        width = max(show.width(step.name) for step in found.steps)
        for step in found.steps:
            sign, words = _sentence(step)
            if words and self._printed.get(step.name) != words:
                self._printed[step.name] = words
                self._spinner.clear()
                show.say(f"{sign} {step.name.ljust(width)}  {words}")
        active = [step.name for step in found.steps if step.run and step.state not in FINAL]
        self._spinner.show("; ".join(filter(None, [_completed(found), ", ".join(active)])))


def show_end(found: WorkflowRecord) -> None:
    """Print how a workflow ended, and what to do about failed steps."""
    sign = SIGNS[State(found.state)]
    took = show.duration(round((found.ended_at or found.created_at) - found.created_at, 3))
    if found.state == WorkflowState.COMPLETE:
        show.say(f"{sign} Total time: {took}")
        show.say(f"{sign} Workflow {found.number} complete")
        return
    show.say(f"{sign} Workflow {found.number} {found.state}: {_counted(found)} ({took})")
    for step in found.steps:
        if step.run and step.state not in (State.COMPLETE, State.STOPPED, State.KILLED):
            show.say(f"ℹ️  Use 'spell logs -v {step.run}' to see what happened in {step.name}.")
    show.say("ℹ️  Cast it again to continue: complete steps are reused.")


def workflow_state(found: WorkflowSummary) -> str:
    """Return the state of a workflow for display: `Complete`, `*Running`, `*Stopping`."""
    return show.state(found.state, None, None, found.wish)


def _counted(found: WorkflowRecord) -> str:
    """`1 of 3 steps complete, 1 failed, 1 skipped`."""
    states = [step.state for step in found.steps if step.state != State.COMPLETE]
    others = (f"{states.count(state)} {state.replace('_', ' ')}" for state in dict.fromkeys(states))
    return ", ".join([_completed(found), *others])


def _completed(found: WorkflowRecord) -> str:
    return f"{found.steps_complete} of {show.count(found.steps_count, 'step')} complete"


def _sentence(step: StepRecord) -> tuple[str, str]:
    """Return sign and words for the state of a step; the words are empty while it waits."""
    if step.reused:
        return SIGNS[State.COMPLETE], f"reused run {step.run}"
    if step.run is None:
        words = "" if step.state == StepState.WAITING else f"{step.state}: {step.message}"
        return SIGNS[State.FAILED if step.state == StepState.FAILED else State.STOPPED], words
    state = State(step.state)
    if state not in FINAL:
        see = f" (its log: spell logs -f {step.run})" if state == State.RUNNING else ""
        return "✨", f"run {step.run}: {_PHASES[state]}{see}"
    took = f" ({show.duration(round(step.duration_s, 2))})" if step.duration_s else ""
    why = "" if state == State.COMPLETE else f": {step.message}"
    return SIGNS[state], f"run {step.run}: {state.replace('_', ' ')}{why}{took}"


def _detached(number: int, *, err: bool) -> None:
    for line in _DETACHED:
        show.say(show.wrapped(line.format(number=number)), err=err)
