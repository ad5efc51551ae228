"""The result of `spell gc`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RemovedRecord:
    """One thing that `spell gc` has removed or, with --dry-run, would remove: its name for people, and its size.

    `kind` is `environment`, `image`, `package`, `snapshot`, `outputs`, `work`, `upload` or `cache`.
    """

    what: str
    size_bytes: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class GcRecord:
    """Everything that `spell gc` has removed, or would remove; `warnings` names the parts that it could not check, and
    `caches_bytes` is what the caches of runs take now."""

    removed: list[RemovedRecord]
    warnings: list[str]
    caches_bytes: int = 0
