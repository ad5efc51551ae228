"""What a garbage collection has removed, or would remove."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Removed:
    """One thing that went: what a person calls it, the room that it took, and its kind (see `CollectedRecord`)."""

    what: str
    size_bytes: int
    kind: str
