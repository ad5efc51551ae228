"""What the API answers of links. As in `orchestrator.records`: frozen, printed by `--json`, in this order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A resource that has a name of its own: `alias` may stand wherever `resource` may."""

    alias: str
    resource: str
    created_at: float
