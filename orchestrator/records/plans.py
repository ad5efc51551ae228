"""What a cast would do, found out without casting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

READY, PULL, BUILD, UNKNOWN = "ready", "pull", "build", "unknown"


@dataclass(frozen=True, slots=True)
class PlannedMount:
    """A mount of the run: what it resolves to (`runs/7/data.txt`), at which path, and whether it is a folder."""

    resource: str
    path: str
    is_folder: bool


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """What casting a spec would do now. No run was cast, and no number is spent.

    Attributes:
        spec: the spec of the run with everything resolved, as people may see it.
        executor, machine_type, cpus, memory_bytes, gpus: where it would run, and what it would reserve.
        waits_for: what it would wait for, in words; "" if it would start at once.
        image: of its container; "" for a process.
        image_state: `ready`, `pull` or `build`; "" without a container.
        environment: the key of its packages; "" if that is known only with the image.
        environment_state: `ready`, `build` or `unknown`.
        mounts: in the order of the spec.
        missing: digests of the blobs of its code that would be sent.
        reused: the run that would be taken instead, if that was asked; null for none.
        warnings: for the person.
    """

    spec: dict[str, Any]
    executor: str
    machine_type: str
    cpus: float
    memory_bytes: int | None
    gpus: int
    waits_for: str
    image: str
    image_state: str
    environment: str
    environment_state: str
    mounts: list[PlannedMount]
    missing: list[str]
    reused: int | None
    warnings: list[str]
