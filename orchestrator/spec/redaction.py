"""How hidden values are shown. Which fields of a spec hide something is in the table of `fields`."""

from __future__ import annotations

import re

MASK = "***"
_CREDENTIALS = r"(?<=://)[^/@\s\"'`]+@"


def masked(_text: str) -> str:
    """The text that replaces a hidden value."""
    return MASK


def redacted(text: str) -> str:
    """`text` without the credentials of the URLs in it."""
    return re.sub(_CREDENTIALS, "****@", text)
