"""Baked images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A baked image: its name, its ID in the engine, and whether it was pushed to its registry."""

    tag: str
    id: str
    pushed: bool
