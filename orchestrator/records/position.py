"""The position of a follower in the events and logs of a run. The server sends a position with each part; a client sends
the last one back to continue from there.

Format: `EVENT.LOG.BUILD`, three whole numbers. The empty text is the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

_PARTS = 3
_LAST = (1 << 63) - 1  # the largest number that SQLite holds


@dataclass(frozen=True, slots=True)
class Position:
    """A position in the events and logs of a run.

    Attributes:
        event: the id of the last event that was seen.
        log: bytes of the run's log that were seen.
        build: bytes of its build log that were seen.
    """

    event: int = 0
    log: int = 0
    build: int = 0

    START: ClassVar[Position]
    """Before everything."""
    END: ClassVar[Position]
    """After all events and logs of a run: a follower from here gets only its end."""

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read a position.

        Raises:
            ValueError: `text` is not a position.
        """
        if not text:
            return cls.START
        parts = text.split(".")
        if len(parts) != _PARTS or not all(part.isascii() and part.isdecimal() for part in parts):
            raise ValueError(f"{text!r} is not a position: EVENT.LOG.BUILD, three whole numbers.")
        return cls(*map(int, parts))

    def __str__(self) -> str:
        return f"{self.event}.{self.log}.{self.build}"


Position.START = Position()
Position.END = Position(_LAST, _LAST, _LAST)
