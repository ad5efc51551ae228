"""The result of `spell gc`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RemovedRecord:
    """One thing that `spell gc` has removed or, with --dry-run, would remove: its name for people, and its size.

    `kind` is `environment`, `image`, `package`, `snapshot`, `outputs`, `work` or `upload`.
    """

    what: str
    size_bytes: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class GcRecord:
    """Everything that `spell gc` has removed, or would remove; `warnings` names the parts that it could not check."""

    removed: list[RemovedRecord]
    warnings: list[str]
