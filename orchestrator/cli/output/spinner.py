"""The spinner of a terminal: one line that a thread redraws, and that is erased at the end."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TextIO

from orchestrator.cli.output import show
from orchestrator.cli.output.streams import speaks_utf8

_FRAMES, _ASCII_FRAMES = "⭐🌟", "|/-\\"
_FRAME_S, _ASCII_FRAME_S = 0.4, 0.1
_USUAL_COLUMNS = 80
_CLEAR_LINE = "\r\x1b[K"


class Spinner:
    """The spinner of a state. This one shows nothing, for outputs that are no terminal."""

    is_moving = False

    def show(self, text: str) -> None:
        """Show this text beside the spinner."""

    def clear(self) -> None:
        """Erase the line."""


class TerminalSpinner(Spinner):
    """`⭐ Building… last line of the build log`, cut to the width of the terminal.

    Args:
        stream: a terminal. Call `clear` before anything else writes to it.
    """

    is_moving = True

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        utf8 = speaks_utf8(stream)
        self._frames, self._frame_s = (_FRAMES, _FRAME_S) if utf8 else (_ASCII_FRAMES, _ASCII_FRAME_S)
        self._lock = threading.RLock()  # reentrant: ^C may interrupt its own thread while that holds the lock
        self._text, self._turn = "", 0
        self._moving = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, text: str) -> None:
        """Show this text beside the spinner."""
        with self._lock:
            self._text = show.without_ansi(text)
            self._draw()
        self._moving.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._spin, name="spinner", daemon=True)
            self._thread.start()

    def clear(self) -> None:
        """Erase the line."""
        self._moving.clear()
        with self._lock, contextlib.suppress(OSError):
            if self._text:
                self._text = ""
                self._stream.write(_CLEAR_LINE)
                self._stream.flush()

    def _spin(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            while self._moving.wait():
                time.sleep(self._frame_s)
                with self._lock:
                    self._turn += 1
                    if self._text:
                        self._draw()

    def _draw(self) -> None:
        sign = self._frames[self._turn % len(self._frames)]
        room = self._columns() - show.most_cells(sign) - 2  # a space, and none in the last column
        self._stream.write(f"{_CLEAR_LINE}{sign} {show.cut(self._text, max(0, room))}")
        self._stream.flush()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or _USUAL_COLUMNS
        except OSError:
            return _USUAL_COLUMNS
