"""The console of a followed search: a live table on a terminal, elsewhere a line for each ended trial; then a summary."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import click

from orchestrator.cli.output import show
from orchestrator.cli.output.console import SIGNS
from orchestrator.cli.output.detach import BROKEN_PIPE, INTERRUPTED
from orchestrator.cli.output.streams import close_stdout
from orchestrator.client.searches import Searches
from orchestrator.errors import ServerUnavailable
from orchestrator.records.searches import SearchRecord, SearchSummary, TrialRecord
from orchestrator.states import FINAL, SearchState, State, TrialState

_LOOK_S, _IDLE_SHARE = 0.2, 10  # the pause is ten times as long as the request, so that long searches cost little
_GIVE_UP_S = 60.0
_MOST_ROWS = 100
_DETACHED = (
    "✨ Your search goes on without this terminal.",
    "✨ Use 'spell hyper info -f {number}' to follow it again.",
    "✨ Use 'spell hyper stop {number}' to save outputs and stop it, 'spell hyper kill {number}' to lose them.",
)


def follow(searches: Searches, found: SearchRecord, *, json_: bool) -> int:
    """Show a search to its end: as it goes, or as JSON when it has ended.

    Returns:
        The exit code of the command: 0 when a trial is complete.
    """
    try:
        if not json_:
            show.say("✨ Stop viewing with ^C")
        with _shower(quiet=json_) as shower:
            found = _wait(searches, found, shower)
        if json_:
            show.as_json(found)
        else:
            _show_end(found)
    except KeyboardInterrupt:
        click.echo(err=json_)
        _detached(found.number, err=json_)
        return INTERRUPTED
    except BrokenPipeError:  # `spell hyper … | head`: the reader has closed the pipe
        close_stdout()
        _detached(found.number, err=True)
        return BROKEN_PIPE
    return 0 if found.state == SearchState.COMPLETE else 1


def _wait(searches: Searches, found: SearchRecord, shower: Callable[[SearchRecord], object]) -> SearchRecord:
    """Show a search until it has ended, also after a restart of the server.

    Raises:
        ServerUnavailable: if no server answers for a minute.
    """
    took, deadline = 0.0, time.monotonic() + _GIVE_UP_S
    while True:
        shower(found)
        if found.state != SearchState.RUNNING:
            return found
        time.sleep(max(_LOOK_S, took * _IDLE_SHARE))
        began = time.monotonic()
        try:
            found = searches.get(str(found.number))
            took, deadline = time.monotonic() - began, time.monotonic() + _GIVE_UP_S
        except ServerUnavailable:
            if time.monotonic() > deadline:
                raise


@contextlib.contextmanager
def _shower(*, quiet: bool) -> Iterator[Callable[[SearchRecord], object]]:
    """Give a function that shows the present state of a search."""
    if quiet:
        yield lambda _found: None
    elif not sys.stdout.isatty() or show.is_dumb():
        yield _Lines().show
    else:
        from orchestrator.cli.output.search_live import LiveTable  # 23 ms: rich, needed only on a terminal

        with LiveTable(rows) as table:
            yield table.show


class _Lines:
    """Prints each trial once, when it has ended."""

    def __init__(self) -> None:
        self._printed: set[tuple[int, int | None]] = set()
        self._message = ""

    def show(self, found: SearchRecord) -> None:
        """Print the trials that have ended since the last call, and the message of the search if it is new."""
        if found.state == SearchState.RUNNING and found.message not in ("", self._message):
            show.warn(found.message)
        self._message = found.message
        for trial in found.trials:
            if trial.state in FINAL and (trial.number, trial.run) not in self._printed:
                self._printed.add((trial.number, trial.run))
                show.say(f"{SIGNS[State(trial.state)]} {_sentence(found, trial)}")


def _sentence(found: SearchRecord, trial: TrialRecord) -> str:
    which = f"Trial {trial.number}" + (f" (run {trial.run})" if trial.run else "")
    why = f": {trial.message}" if trial.message else ""
    value = "" if trial.value is None else f", {found.metric} {number(trial.value)}"
    took = f" ({show.duration(round(trial.duration_s, 2))})" if trial.duration_s else ""
    return f"{which} {trial.state.replace('_', ' ')}{why}{value}{took}  {_params(trial)}"


def _params(trial: TrialRecord) -> str:
    return " ".join(f"{name}={value}" for name, value in trial.params.items())


def rows(found: SearchRecord, trials: Sequence[TrialRecord]) -> tuple[list[str], list[list[str]]]:
    """Return the headers and rows of a table of trials. The best trial is marked."""
    headers = ["RUN ID", "STATUS", "DURATION", *found.space, *([found.metric] if found.metric else [])]
    return headers, [_row(found, trial) for trial in trials]


def _row(found: SearchRecord, trial: TrialRecord) -> list[str]:
    waits = trial.state == TrialState.WAITING
    status = "Waiting" if waits else show.state(trial.state, trial.exit_code, trial.signal, None)
    took = "-" if waits or trial.duration_s is None else show.duration(round(trial.duration_s, 2))
    values = [trial.params[name] for name in found.space]
    if not found.metric:
        return [str(trial.run or "-"), status, took, *values]
    best = " (best)" if trial.value is not None and trial.run == found.best_run else ""
    value = "-" if trial.value is None else number(trial.value) + best
    return [str(trial.run or "-"), status, took, *values, value]


def show_trials(found: SearchRecord) -> None:
    """Print the table of all trials, and why some could not be cast."""
    show.table(*rows(found, found.trials))
    uncast = [trial for trial in found.trials if trial.run is None and trial.message]
    for trial in uncast[:_MOST_ROWS]:
        show.say(f"Trial {trial.number} ({_params(trial)}) could not be cast: {trial.message}")


def _show_end(found: SearchRecord) -> None:
    """Print how a search ended, its best trial, and how to continue after failed trials."""
    if 0 < len(found.trials) <= _MOST_ROWS:
        click.echo()
        show.table(*rows(found, found.trials))
        click.echo()
    sign, took = (
        SIGNS[State(found.state)],
        show.duration(round((found.ended_at or found.created_at) - found.created_at, 3)),
    )
    if best := next((trial for trial in found.trials if trial.value is not None and trial.run == found.best_run), None):
        show.say(f"🎉 Best: run {best.run}, {found.metric} {number(best.value or 0.0)}, with {_params(best)}")
    show.say(f"{sign} Search {found.number} {found.state}: {_counted(found)} ({took})")
    if found.message:
        show.warn(found.message)
    warn_of_samplers(found)
    failed = [trial for trial in found.trials if trial.state not in (State.COMPLETE, State.STOPPED, State.KILLED)]
    if run := next((trial.run for trial in failed if trial.run), None):
        show.say(f"ℹ️  Use 'spell logs -v {run}' to see what happened in run {run}.")
    if failed or found.trials_cast < found.trials_count:
        show.say(
            f"ℹ️  Use 'spell hyper resume {found.number}' to cast failed trials again, and those that were never cast."
        )
    if len(found.trials) > _MOST_ROWS:
        show.say(f"ℹ️  Use 'spell hyper info {found.number}' to see all {show.count(len(found.trials), 'trial')}.")


def warn_of_samplers(found: SearchRecord) -> None:
    """Say that a search went on under another sampler: the same seed would now lead to other trials."""
    if len(found.samplers) > 1:
        since = ", ".join(list(found.samplers)[1:])
        show.warn(
            f"The program that chooses values was upgraded before trial {since} of search {found.number}: a search with the "
            "same seed would now try other values."
        )


def _counted(found: SearchRecord) -> str:
    """`7 of 9 trials complete, 1 failed, 1 not cast`."""
    states = [trial.state for trial in found.trials if trial.state != State.COMPLETE]
    counts = {state.replace("_", " "): states.count(state) for state in dict.fromkeys(states)}
    counts["not cast"] = found.trials_count - found.trials_cast
    others = (f"{count} {state}" for state, count in counts.items() if count)
    return ", ".join([f"{found.trials_complete} of {show.count(found.trials_count, 'trial')} complete", *others])


def search_state(found: SearchSummary) -> str:
    """Return the state of a search for display: `Complete`, `*Running`, `*Stopping`."""
    return show.state(found.state, None, None, found.wish)


def number(value: float) -> str:
    """Return the value of a metric with six digits."""
    return f"{value:.6g}"


def _detached(number_: int, *, err: bool) -> None:
    for line in _DETACHED:
        show.say(show.wrapped(line.format(number=number_)), err=err)
