"""Secrets, always without their values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRecord:
    """A secret, without its value.

    Attributes:
        created_at, updated_at: when it was set first and last.
    """

    name: str
    created_at: float
    updated_at: float
