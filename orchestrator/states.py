"""States of a run, the legal moves between them, and which end reason leads to which final state.

Pure tables; `store.Store` alone writes states, and it obeys these.
The names are those that a person sees (`Machine_Requested`, `Building`, …), in lower case.
A request to stop or kill is not a state but a column of the run (`StopRequest`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The state of a run."""

    MACHINE_REQUESTED = "machine_requested"
    BUILDING = "building"
    MOUNTING = "mounting"
    RUNNING = "running"
    SAVING = "saving"
    PUSHING = "pushing"
    COMPLETE = "complete"
    FAILED = "failed"
    BUILD_FAILED = "build_failed"
    MOUNT_FAILED = "mount_failed"
    STOPPED = "stopped"
    KILLED = "killed"
    INTERRUPTED = "interrupted"


class StopRequest(StrEnum):
    """A person's request to end a run that has not ended. `KILL` may replace `STOP`, never the reverse."""

    STOP = "stop"
    KILL = "kill"


class StepState(StrEnum):
    """The state of a step of a workflow. `CAST`: it has a run, whose state says more; `FAILED`: the run did not complete."""

    WAITING = "waiting"
    CAST = "cast"
    COMPLETE = "complete"
    FAILED = "failed"
    SKIPPED = "skipped"


class WorkflowState(StrEnum):
    """The state of a workflow. All but the first are final."""

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    STOPPED = "stopped"
    KILLED = "killed"


class TrialState(StrEnum):
    """The state of a trial of a search. `WAITING`: it will be cast again; `RUNNING`: it has a run, whose state says more;
    `STOPPED`: its run was stopped, but not the search, so its metrics count."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    STOPPED = "stopped"


class SearchState(StrEnum):
    """The state of a search. All but the first are final; `FAILED`: none of its trials is complete."""

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    STOPPED = "stopped"
    KILLED = "killed"


FINAL = frozenset(
    {
        State.COMPLETE,
        State.FAILED,
        State.BUILD_FAILED,
        State.MOUNT_FAILED,
        State.STOPPED,
        State.KILLED,
        State.INTERRUPTED,
    }
)
ACTIVE = frozenset(State) - FINAL

_ENDS_EARLY = frozenset({State.FAILED, State.KILLED, State.STOPPED, State.INTERRUPTED})
MOVES: dict[State, frozenset[State]] = {
    # to saving, before this attempt has started anything: the outputs of the attempt before
    State.MACHINE_REQUESTED: frozenset({State.BUILDING, State.SAVING}) | _ENDS_EARLY,
    # back to the queue: the attempt has failed, or the server died before it had started anything
    State.BUILDING: frozenset(
        {State.MACHINE_REQUESTED, State.MOUNTING, State.RUNNING, State.SAVING, State.BUILD_FAILED, State.MOUNT_FAILED}
    )
    | _ENDS_EARLY,
    State.MOUNTING: frozenset({State.MACHINE_REQUESTED, State.RUNNING, State.SAVING, State.MOUNT_FAILED}) | _ENDS_EARLY,
    State.RUNNING: frozenset({State.MACHINE_REQUESTED, State.SAVING, State.MOUNT_FAILED}) | _ENDS_EARLY,
    State.SAVING: frozenset({State.PUSHING}) | _ENDS_EARLY,
    State.PUSHING: FINAL,
} | {final: frozenset() for final in FINAL}


@dataclass(frozen=True, slots=True)
class End:
    """The meaning of an end reason.

    Attributes:
        state: the final state it leads to.
        retryable: whether the same run may succeed if it is tried again unchanged.
        text: the message for a user; `{code}`, `{signal}` and `{detail}` are filled in.
        usual: the detail if none is given.
    """

    state: State
    retryable: bool
    text: str
    usual: str = ""

    def words(self, code: int | None, signal: int | None, detail: str) -> str:
        """Return the message for a user about this end."""
        return self.text.format(code=code, signal=signal, detail=detail or self.usual)


ENDS: dict[str, End] = {
    "exited_zero": End(State.COMPLETE, False, "the command ended with exit code 0"),
    "exited_nonzero": End(State.FAILED, True, "the command ended with exit code {code}"),
    "signalled": End(State.FAILED, True, "the command was ended by signal {signal}"),
    "out_of_memory": End(State.FAILED, False, "the command ran out of memory{detail}"),
    "timed_out": End(State.STOPPED, False, "the run reached its time limit and was stopped"),
    "condition_met": End(State.STOPPED, False, "a stop condition was met: {detail}"),
    "idle": End(State.STOPPED, False, "stopped, as {detail}"),
    "stop_requested": End(State.STOPPED, False, "stopped on request; {detail}", "its outputs are kept"),
    "kill_requested": End(State.KILLED, False, "killed on request; its outputs are lost"),
    "build_failed": End(State.BUILD_FAILED, False, "the environment could not be built: {detail}"),
    "code_failed": End(State.FAILED, False, "the code could not be unpacked: {detail}"),
    "secret_lost": End(State.FAILED, False, "a secret could not be passed to the run: {detail}"),
    "mount_failed": End(State.MOUNT_FAILED, False, "a mount failed: {detail}"),
    "executor_failed": End(State.FAILED, True, "the executor could not run the command: {detail}"),
    "disk_full": End(State.FAILED, False, "the disk is full: {detail}"),
    "save_failed": End(State.FAILED, False, "its outputs could not be saved: {detail}"),
    "supervisor_lost": End(State.FAILED, True, "the run's supervisor died without a verdict: {detail}"),
    "container_lost": End(State.FAILED, True, "the run's container was removed from outside: {detail}"),
    "machine_restarted": End(State.INTERRUPTED, True, "the machine restarted while it ran"),
    "home_copied": End(
        State.INTERRUPTED, False, "its home is a copy or a restored backup: the run was active when the copy was made"
    ),
    "imported_complete": End(State.COMPLETE, False, "imported from {detail}, where it finished", "a tracker"),
    "imported_failed": End(State.FAILED, False, "imported from {detail}, where it failed", "a tracker"),
    "imported_stopped": End(State.STOPPED, False, "imported from {detail}, where it was stopped", "a tracker"),
    "imported_unfinished": End(State.INTERRUPTED, False, "imported from {detail}, where it has no end", "a tracker"),
    "internal_error": End(State.FAILED, True, "spelld failed with an internal error: {detail}"),
}

OVERRULED_BY_STOP = frozenset(
    {"exited_zero", "exited_nonzero", "signalled", "build_failed", "code_failed", "secret_lost", "mount_failed"}
    | {"executor_failed"}
)
"""End reasons that a run does not have once a request to stop it was accepted: it ends as requested, whatever its command
did meanwhile. The others tell of a loss, and stay. A request to kill overrules every reason but `home_copied`: in a copy,
nothing is left of the run that could be killed."""


def is_heeded(request: StopRequest | None, reason: str) -> bool:
    """Whether a run that ends for this reason does what was requested of it."""
    if request == StopRequest.KILL and reason != "home_copied":
        return ENDS[reason].state == State.KILLED
    return request is None or reason not in OVERRULED_BY_STOP


KEEPS_OUTPUTS = frozenset({State.COMPLETE, State.FAILED, State.STOPPED, State.INTERRUPTED})
"""Final states whose outputs are kept, and so can be mounted."""


def spoken(state: str) -> str:
    """Return a state as a word in a sentence about its run: "queued", "build failed"."""
    return "queued" if state == State.MACHINE_REQUESTED else state.replace("_", " ")


def may_move(current: State, to: State) -> bool:
    """Whether a run in `current` may go to `to`."""
    return to in MOVES[current]
