"""The screen of `spell top`. It is loaded only on a terminal, because rich loads slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.cli.output import show

_OTHER_LINES = 4  # the line above, one for what is not shown, headers, and where the cursor stands


class Screen:
    """A table on the alternate screen of the terminal.

    Args:
        headers: of its columns.
    """

    def __init__(self, headers: Sequence[str]) -> None:
        self._headers = headers
        self._console = Console(highlight=False, markup=False, emoji=False)
        # not redirected, or stdout would seem to have no encoding, and `…` become `...`
        self._live = Live(console=self._console, auto_refresh=False, screen=True, redirect_stdout=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    @property
    def room(self) -> int:
        """The number of rows that fit on the screen."""
        return max(1, self._console.height - _OTHER_LINES)

    def show(self, rows: Sequence[Sequence[str]], words: str) -> None:
        """Draw these rows below a line of text."""
        table, not_shown = show.live_table(self._headers, rows, self._console.width)
        lines = [words, not_shown, *table]
        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)
