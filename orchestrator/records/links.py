"""Links."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A link: `alias` is another name of `resource`."""

    alias: str
    resource: str
    created_at: float
