"""The console of a followed run: `✨ Building… done`, the raw output of its command, `🎉 Run 2 complete`.

On a terminal the current state has a spinner; elsewhere the same lines are printed in order. With `verbose` each state
is printed when it begins, followed by its log.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.cli.output import show
from orchestrator.cli.output.spinner import Spinner, TerminalSpinner
from orchestrator.client.follow import Followed
from orchestrator.records.events import EventRecord
from orchestrator.records.run_summary import RunSummary
from orchestrator.states import FINAL, State

if TYPE_CHECKING:
    from orchestrator.cli.output.sieve import Sieve
    from orchestrator.cli.output.timestamps import Stamper

_TITLES = {
    State.MACHINE_REQUESTED: "Machine_Requested",
    State.BUILDING: "Building",
    State.MOUNTING: "Mounting",
    State.SAVING: "Saving",
    State.PUSHING: "Pushing",
}
_WAITING = {
    State.MACHINE_REQUESTED: "Run created -- waiting for a machine.",
    State.BUILDING: "Machine acquired -- commencing run",
    State.SAVING: "Scanning for modified or new files from the run",
    State.PUSHING: "Recording the outputs",
}
SIGNS = {
    State.COMPLETE: "🎉",
    State.FAILED: "💥",
    State.BUILD_FAILED: "💥",
    State.MOUNT_FAILED: "💥",
    State.STOPPED: "✋",
    State.KILLED: "💀",
    State.INTERRUPTED: "✋",
}
_NEEDS_A_LOOK = frozenset({State.BUILD_FAILED, State.MOUNT_FAILED})


class Console:
    """Shows a run that is followed.

    Args:
        verbose: whether to show all states and their logs.
        status_to_stderr: whether stdout gets only the output of the run's command, byte for byte.

    Attributes:
        stamp: if set, puts times before the lines of that output, or shows only some of them.
    """

    def __init__(self, *, verbose: bool = False, status_to_stderr: bool = False) -> None:
        self._verbose, self._to_stderr = verbose, status_to_stderr
        stream = sys.stderr if status_to_stderr else sys.stdout
        moving = stream.isatty() and not verbose and not show.is_dumb()
        self._spinner = TerminalSpinner(stream) if moving else Spinner()
        self._state: State | None = None
        self._at_line_start = True
        self._told_of_waiting, self._queued_at = False, 0.0
        self.stamp: Stamper | Sieve | None = None

    def follow(self, items: Iterable[Followed]) -> RunSummary:
        """Show the run until it has ended, and return its summary."""
        try:
            for item in items:
                if item.event:
                    self._event(item.event)
                elif item.kind == "waits":
                    self._waits(item.data.decode())
                elif item.kind == "build":
                    self._build(item.data)
                elif item.kind == "log":
                    self.log(item.data)
                elif item.run:
                    return item.run
        finally:
            self._spinner.clear()
        raise AssertionError("the stream ended without an `end` item")

    def log(self, data: bytes) -> None:
        """Print output of the run's command: unchanged, or with times before its lines."""
        self.raw(self.stamp.stamped(data) if self.stamp else data)

    def raw(self, data: bytes) -> None:
        """Print bytes unchanged."""
        self._spinner.clear()
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        self._at_line_start = data.endswith(b"\n")

    def end(self, run: RunSummary) -> None:
        """Print how the run ended."""
        final = State(run.state)
        sign = SIGNS[final]
        if final == State.COMPLETE:
            self._say(f"{sign} Total run time: {show.duration(run.duration_s or 0)}")
            self._say(f"{sign} Run {run.number} complete")
            return
        took = f" ({show.duration(run.duration_s)})" if run.duration_s else ""
        self._say(f"{sign} Run {run.number} {final.replace('_', ' ')}: {show.line(run.message)}{took}")
        if final in _NEEDS_A_LOOK:
            self._say(f"ℹ️  Use 'spell logs {run.number} --verbose' to examine cause of error.")

    def _event(self, event: EventRecord) -> None:
        if event.kind == "notice":
            self._say(f"💫 {show.line(event.text)}")
        elif event.kind == "wish":
            self._say(f"💫 Run is {event.state}{': ' if event.text else ''}{event.text}")
        else:
            self._queued_at = event.at
            self._enter(State(event.state))

    def _enter(self, state: State) -> None:
        left, self._state = self._state, state
        self._spinner.clear()
        if self._verbose:
            if state not in FINAL:
                self._say(f"✨ Run is {state}")
            return
        went_on = state not in FINAL or state == State.COMPLETE or left in (State.SAVING, State.PUSHING)
        went_on = went_on and state != State.MACHINE_REQUESTED  # back in the queue: the server died
        if left in _TITLES and went_on:
            self._say(f"✨ {_TITLES[left]}… done")
        if state == State.RUNNING:
            self._say("✨ Run is running")
        elif state in _TITLES:
            self._spinner.show(f"{_TITLES[state]}… {_WAITING.get(state, '')}")

    def _waits(self, words: str) -> None:
        """Say what the run waits for, and since when. The spinner is kept up to date; elsewhere one line is enough, unless all is asked for."""
        words = f"{words}, since {show.clock(self._queued_at)}"
        if not self._spinner.is_moving and (self._verbose or not self._told_of_waiting):
            self._say(f"💫 Waiting for {words}")
        self._told_of_waiting = True
        self._spinner.show(f"{_TITLES[State.MACHINE_REQUESTED]}… Waiting for {words}")

    def _build(self, data: bytes) -> None:
        if self._verbose and self._to_stderr:
            sys.stderr.buffer.write(data)
            sys.stderr.buffer.flush()
            return
        if self._verbose:
            self.raw(data)
            return
        lines = data.decode("utf-8", "replace").strip().splitlines()
        if lines and self._state:
            self._spinner.show(f"{_TITLES.get(self._state, 'Building')}… {lines[-1]}")

    def _say(self, text: str) -> None:
        self._spinner.clear()
        if not self._at_line_start and not self._to_stderr:
            sys.stdout.write("\n")
            self._at_line_start = True
        show.say(text, err=self._to_stderr)


def exit_code(run: RunSummary) -> int:
    """Return the exit code of `spell` for an ended run: 0 only if it is complete, so that `&& next` does not go on after a
    run that was stopped, whatever its command made of the signal. Else that of its command, 128 + N for signal N, or 1."""
    if run.state == State.COMPLETE:
        return 0
    return run.exit_code or (1 if run.signal is None else 128 + run.signal)
