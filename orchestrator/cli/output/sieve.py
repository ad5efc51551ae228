"""Shows only those lines of a followed log that have what was looked for, with some around them."""

from __future__ import annotations

import re
from collections import deque

from orchestrator.cli.output.timestamps import Stamper, stamp
from orchestrator.content.log_pattern import LogPattern

_LONGEST_BYTES = 4 << 20
_ENDS = re.compile(rb"\r\n|\n|\r(?!\Z)")  # the line feed after the last \r may not be here yet


class Sieve:
    """Lets lines through, or states of a progress bar.

    Args:
        pattern: what they must have.
        around: so many further lines before and after each.
        offset: where the log is followed from.
        clock: for times before the lines; None for none.
    """

    def __init__(self, pattern: LogPattern, around: int, offset: int, clock: Stamper | None) -> None:
        self._pattern, self._around, self._offset, self._clock = pattern, around, offset, clock
        self._rest = b""
        self._before: deque[bytes] = deque(maxlen=around)
        self._after = 0

    def stamped(self, data: bytes) -> bytes:
        """Return what of the next bytes of the log is shown."""
        self._rest += data
        found, at = [], 0
        for end in _ENDS.finditer(self._rest):
            found.append(self._shown(self._rest[at : end.start()], self._offset + at))
            at = end.end()
        self._rest, self._offset = self._rest[at:], self._offset + at
        if len(self._rest) > _LONGEST_BYTES:
            found.append(self.end())
        return b"".join(found)

    def end(self) -> bytes:
        """Return what is shown of the last line, which no line feed has ended."""
        rest, offset = self._rest, self._offset
        self._rest, self._offset = b"", offset + len(rest)
        return self._shown(rest, offset) if rest else b""

    def _shown(self, piece: bytes, offset: int) -> bytes:
        time = stamp(self._clock.time(offset)) if self._clock else b""
        line = b"%b%b\n" % (time, piece.rstrip(b"\r"))
        if self._pattern.is_in(piece):
            found = b"".join((*self._before, line))
            self._before.clear()
            self._after = self._around
            return found
        if self._after:
            self._after -= 1
            return line
        self._before.append(line)
        return b""
