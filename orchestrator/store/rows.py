"""Runs as workers and the scheduler see them: fewer fields than a record, and not shown to users."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from orchestrator.spec.run import RunSpec
from orchestrator.states import State, StopRequest


@dataclass(frozen=True, slots=True)
class NewRun:
    """The data that are recorded when a run is cast.

    Attributes:
        fingerprint: see `Reuse.fingerprint`.
        rerun_of: the run that it repeats.
        key: of the request that casts it; "" when it has none.
        environment, image: its known environment and image, which `gc` keeps until the run starts.
    """

    spec: RunSpec
    executor: str
    cpus: float
    memory_bytes: int | None
    gpus: int
    fingerprint: str | None = None
    rerun_of: int | None = None
    environment: str | None = None
    image: str | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run as its worker and the scheduler see it."""

    number: int
    state: State
    stop_request: StopRequest | None
    fence: int
    attempt: int
    spec: Mapping[str, Any] = field(repr=False)  # it has the values of variables
    executor: str
    cpus: float
    memory_bytes: int
    gpus_wanted: int
    gpus: tuple[int, ...]
    cores: tuple[int, ...]
    created_at: float
    reason: str


@dataclass(frozen=True, slots=True)
class MachineRequest:
    """The part of the machine that a run needs, and the GPUs and cores that it has (`gpus`, `cores`).

    Attributes:
        gpu_type, gpu_memory_bytes: see `machine.Gpu.fits`.
    """

    number: int
    fence: int
    stop_request: StopRequest | None
    cpus: float
    memory_bytes: int
    gpus_wanted: int
    gpus: tuple[int, ...]
    cores: tuple[int, ...]
    gpu_type: str = ""
    gpu_memory_bytes: int = 0


def claimed_run(row: Row[Any]) -> ClaimedRun:
    """Return a row of the table `runs` as a `ClaimedRun`."""
    return ClaimedRun(
        number=row.number,
        state=State(row.state),
        stop_request=StopRequest(row.wish) if row.wish else None,
        fence=row.fence,
        attempt=row.attempt,
        spec=json.loads(row.spec),
        executor=row.executor,
        cpus=row.cpus,
        memory_bytes=row.memory_bytes or 0,
        gpus_wanted=row.gpus_wanted,
        gpus=tuple(json.loads(row.gpus)),
        cores=tuple(json.loads(row.cores)),
        created_at=row.created_at,
        reason=row.reason or "",
    )
