"""What a person looks for in a log: a text, or a regular expression between slashes (`/loss=\\d+/`, `/nan/i`).

RE2 matches it, in time that is linear in the log whatever the expression is: none can make the server hang. Its syntax is that of
Python without what needs more time: references to groups, and looking ahead or back.
https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import re

from orchestrator.errors import InvalidConfig

_WRITTEN = re.compile(r"/(.*)/(i?)\Z", re.DOTALL)
_MOST_CHARS = 10_000


class LogPattern:
    """What is looked for in each piece of a log: a line, or one state of a progress bar that `\\r` replaces by the next.

    Args:
        written: a text, or an expression between slashes; `i` after it ignores the case.

    Raises:
        InvalidConfig: it is empty, too long, or not such an expression.
    """

    def __init__(self, written: str) -> None:
        import re2  # 3 ms, which only a search needs

        if not written or len(written) > _MOST_CHARS:
            raise InvalidConfig(f"The text to search for must have 1 to {_MOST_CHARS} characters.")
        found = _WRITTEN.match(written)
        expression, flags = (found[1], found[2]) if found else (re2.escape(written), "")
        options = re2.Options()
        options.never_nl, options.log_errors, options.case_sensitive = True, False, not flags
        try:
            re2.compile(expression.encode(), options)  # alone first: its error names what was written
            self._compiled = re2.compile(f"(?m:{expression})".encode(), options)
        except (re2.error, UnicodeEncodeError) as error:
            raise InvalidConfig(
                f"{written} is not a regular expression that can be searched for: {_words(error)}.",
                "See https://github.com/google/re2/wiki/Syntax. For what is not in it: spell logs N | grep -P 'EXPRESSION'",
            ) from error

    def find(self, data: bytes, start: int, end: int) -> tuple[int, int] | None:
        """Return where it is first found in data whose pieces end at line feeds; None if nowhere."""
        found = self._compiled.search(data, start, end)
        return (found.start(), found.end()) if found else None

    def is_in(self, piece: bytes) -> bool:
        """Whether a piece has it."""
        return self.find(piece, 0, len(piece)) is not None


def _words(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode(errors="replace") if isinstance(text, bytes) else str(error)
