"""The live table of a search. It is loaded only on a terminal, because rich loads slowly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.cli.output import show
from orchestrator.records.searches import SearchRecord, TrialRecord
from orchestrator.states import FINAL

Rows = Callable[[SearchRecord, Sequence[TrialRecord]], tuple[list[str], list[list[str]]]]
_OTHER_LINES = 4  # headers, the count below, and where the cursor stands
_MOST_CELLS = 60


class LiveTable:
    """A table on stdout that is redrawn in place, has at most as many lines as the terminal, and is erased at the end.

    Args:
        rows: returns headers and rows for trials.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._console = Console(highlight=False, markup=False, emoji=False)
        # not redirected, or stdout would seem to have no encoding, and `…` become `...`
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    def show(self, found: SearchRecord) -> None:
        """Draw the active trials, and above them the last ended ones."""
        room = max(1, self._console.height - _OTHER_LINES)
        going = [trial for trial in found.trials if trial.state not in FINAL][:room]
        ended = [trial for trial in found.trials if trial.state in FINAL]
        headers, rows = self._rows(found, [*ended[max(0, len(ended) - room + len(going)) :], *going])
        words = f"{len(ended)} of {show.count(found.trials_count, 'trial has', 'trials have')} ended{found.message and '. '}{found.message}"
        table, not_shown = show.live_table(headers, rows, self._console.width)
        lines = [*table, show.cut(f"{words}{not_shown and '. '}{not_shown}", self._console.width)]
        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)
