"""Draws text repeatedly: in place on a terminal, one block after the other elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from orchestrator.cli.output import show

_UP, _CLEAR_BELOW = "\x1b[{}A", "\r\x1b[J"


class Redraw:
    """Draws blocks of lines on stdout.

    Attributes:
        in_place: whether each block replaces the one before.
    """

    def __init__(self) -> None:
        self.in_place = sys.stdout.isatty() and not show.is_dumb()
        self._lines = 0

    @property
    def columns(self) -> int | None:
        """The most cells of a line; None where lines of any length are kept whole."""
        return shutil.get_terminal_size().columns - 1 if self.in_place else None

    def show_table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Draw a table, below a line that names the columns that there is no room for."""
        lines, not_shown = show.live_table(headers, rows, self.columns)
        self.show([not_shown, *lines] if not_shown else lines)

    def show(self, lines: list[str]) -> None:
        """Draw these lines, as far as the terminal has room for them."""
        if self.in_place:
            columns, rows = shutil.get_terminal_size()
            lines = [show.cut_cells(line, columns - 1) for line in lines[: max(1, rows - 1)]]
            back = _UP.format(self._lines) if self._lines else ""
            sys.stdout.write(back + _CLEAR_BELOW)
        elif self._lines:
            sys.stdout.write("\n")
        self._lines = len(lines)
        sys.stdout.write("".join(line + "\n" for line in lines))
        sys.stdout.flush()
