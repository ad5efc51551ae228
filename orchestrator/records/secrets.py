"""What the API answers of secrets: never what they hold. As in `orchestrator.records`: frozen, printed by `--json`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRecord:
    """A secret, without its value.

    Attributes:
        created_at, updated_at: when it was set for the first and for the last time.
    """

    name: str
    created_at: float
    updated_at: float
