"""What the API answers about baked images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A baked image: its name, the engine's ID of it, and whether its registry has it."""

    tag: str
    id: str
    pushed: bool
