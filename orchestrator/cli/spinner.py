"""The spinner of a terminal. Loaded only there: rich takes a while."""

from __future__ import annotations

import shutil
from typing import TextIO

from rich._spinners import SPINNERS
from rich.console import Console
from rich.status import Status
from rich.text import Text

SPINNERS["spell"] = {"interval": 400, "frames": ["⭐", "🌟"]}
_SIGN_WIDTH = 4


class TerminalSpinner:
    """`⭐ Building… last line of the build log`, cut to the width of the terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        self._status: Status | None = None

    def show(self, text: str) -> None:
        """Show this text beside the moving sign."""
        line = Text(text[: shutil.get_terminal_size().columns - _SIGN_WIDTH])
        if self._status is None:
            self._status = Status(line, console=self._console, spinner="spell")
            self._status.start()
        else:
            self._status.update(line)

    def clear(self) -> None:
        """Leave no trace on the line."""
        if self._status:
            self._status.stop()
            self._status = None
