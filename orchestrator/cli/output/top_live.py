"""The screen of `spell top`. Loaded only for it: rich takes a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.cli.output import show
from orchestrator.cli.top import HEADERS, TopRow, cells

_OTHER_LINES = 4  # the line above, an empty one, headers, and where the cursor stands


class Screen:
    """A terminal's second screen, which shows runs and leaves the first as it was."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._live = Live(console=self._console, auto_refresh=False, screen=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    @property
    def room(self) -> int:
        """How many runs there is room for."""
        return max(1, self._console.height - _OTHER_LINES)

    def show(self, rows: Sequence[TopRow], total: int) -> None:
        """Draw these runs, of so many."""
        running = sum(row.stats is not None for row in rows)
        words = f"{total} active, {running} running. q quits."
        table = Table(box=None, pad_edge=False, header_style="")
        for name in HEADERS:
            table.add_column(Text(name), no_wrap=True, overflow="crop")
        for row in rows:
            table.add_row(*(Text(show.plain(show.safe(cell))) for cell in cells(row)))
        self._live.update(Group(Text(words), Text(""), table), refresh=True)
