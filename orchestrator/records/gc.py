"""What the API answers about what `spell gc` removes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RemovedRecord:
    """Something that `spell gc` has removed, or would remove: what a person calls it, and the room that it took.

    `kind` is `environment`, `image`, `package`, `snapshot`, `outputs`, `work` or `upload`.
    """

    what: str
    size_bytes: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class GcRecord:
    """What `spell gc` has done, or would do; `warnings` tells what it could not look at."""

    removed: list[RemovedRecord]
    warnings: list[str]
