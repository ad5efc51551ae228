"""How hidden values are shown. Which fields of a spec hide something is in the table of `fields`."""

from __future__ import annotations

import re

MASK = "***"
_USER = r"(\w{0,5})://([^/@\s\"'`]+)@"  # five letters are enough to tell https; a limit keeps an endless word quick


def masked(_text: str) -> str:
    """The text that replaces a hidden value."""
    return MASK


def redacted(text: str) -> str:
    """`text` without the credentials of the URLs in it.

    A name alone stays, as in `ssh://git@host`; but in a URL of http(s) it may be a token.
    """
    return re.sub(_USER, lambda found: found[0] if _is_name(*found.groups()) else _hidden(found), text)


def without_users(text: str) -> str:
    """`text` without the users of the URLs in it, secret or not: a package is the same whoever fetches it."""
    return re.sub(_USER, _hidden, text)


def _is_name(scheme: str, user: str) -> bool:
    return bool(scheme) and not scheme.lower().endswith(("http", "https")) and ":" not in user


def _hidden(found: re.Match[str]) -> str:
    return f"{found[1]}://****@"
