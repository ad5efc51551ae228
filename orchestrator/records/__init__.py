"""What the API answers: frozen records, the same on both sides of the wire.

`--json` prints these, one field per attribute, in this order; a field may be added, none is renamed or removed.
Times are seconds since the epoch (UTC); sizes are bytes; an unknown value is null.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

API_VERSION = 1

T = TypeVar("T")


@functools.cache
def _fields(kind: type) -> frozenset[str]:
    return frozenset(item.name for item in dataclasses.fields(kind))


def from_wire(kind: type[T], body: Mapping[str, Any]) -> T:
    """The record of this kind in a JSON object; fields that only a newer server knows are left out."""
    known = _fields(kind)  # type: ignore[arg-type]
    return kind(**{key: value for key, value in body.items() if key in known})


@dataclass(frozen=True, slots=True)
class MachineType:
    """A named request for resources.

    Attributes:
        cpus: cores, may be a fraction.
        memory_bytes: None when none is reserved.
        gpus: how many.
        pids, shm_bytes: how many processes a container of it may have, and how much shared memory; None for half of
            its memory.
    """

    name: str
    cpus: float
    memory_bytes: int | None = None
    gpus: int = 0
    pids: int = 4096
    shm_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A line of `spell ps`."""

    number: int
    name: str
    state: str
    wish: str | None
    command: str
    description: str
    labels: list[str]
    machine_type: str
    executor: str
    repository: str
    commit: str
    dirty: bool
    project: str
    archived: bool
    created_at: float
    started_at: float | None
    ended_at: float | None
    duration_s: float | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    message: str


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """An attempt of a run that failed, and after which the run was tried again."""

    number: int
    started_at: float | None
    ended_at: float | None
    duration_s: float | None
    exit_code: int | None
    signal: int | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(RunSummary):
    """All that is known of one run, except what has a list of its own (events, artifacts, metrics, samples)."""

    spec: dict[str, Any] = field(repr=False)
    rerun_of: int | None
    search: int | None
    mounts: list[dict[str, str]]
    mounted_by: list[int]
    attempt: int
    attempts: list[AttemptRecord]
    gpus: list[int]
    image: str | None
    environment: str | None
    python: str
    packages: list[str]
    cpu_time_s: float | None
    max_rss_bytes: int | None
    outputs_count: int
    outputs_bytes: int
    outputs_removed_at: float | None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One thing that happened to a run. `kind` is `state`, `wish` or `notice`."""

    id: int
    run: int
    at: float
    kind: str
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class ArtifactRecord:
    """One output of a run.

    Attributes:
        path: relative to `runs/N`.
        sha256: None until it has been computed in the background.
        note: why it was not kept; "" for what was.
    """

    run: int
    path: str
    size: int
    mode: str
    sha256: str | None
    note: str


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """One value that a run sent."""

    run: int
    name: str
    step: int
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """What a run used at one moment: CPU seconds since its start, bytes, and one entry per GPU that it has."""

    run: int
    at: float
    cpu_time_s: float
    memory_bytes: int
    processes: int
    gpus: list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class StatRecord:
    """What a running run uses now. What its executor did not tell in time is None.

    Attributes:
        cpu_percent: 100 for one core that is always busy.
        memory_limit_bytes: what it asked for; None when it asked for none.
        gpus: as in `SampleRecord`.
        duration_s: since its command was started.
    """

    run: int
    name: str
    command: str
    executor: str
    cpu_percent: float | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    processes: int | None
    gpus: list[dict[str, float]]
    duration_s: float


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """A line of `spell doctor`: one thing that was looked at.

    Attributes:
        status: `ok`, `warn` (something will not be had) or `fail` (something needed is broken).
        text: what was found.
        cure: what to do about it; "" when nothing need be done.
    """

    name: str
    status: str
    text: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class CollectedRecord:
    """Something that `spell gc` has removed, or would remove: what a person calls it, and the room that it took.

    `kind` is `environment`, `image`, `package`, `snapshot`, `outputs`, `work` or `upload`.
    """

    what: str
    size_bytes: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """What `spell gc` has done, or would do; `warnings` tells what it could not look at."""

    removed: list[CollectedRecord]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A line of `spell ls`. `link` is where a symbolic link leads, else ""."""

    path: str
    size: int
    modified_at: float
    is_dir: bool
    link: str = ""


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """A machine type, what of it fits into this machine, and what is free of it now."""

    name: str
    cpus: float
    memory_bytes: int | None
    gpus: int
    possible: bool
    free_now: int


@dataclass(frozen=True, slots=True)
class CastRecord:
    """The answer to casting a run: its number, and what to tell the person.

    Attributes:
        reused: whether it is an earlier run, which did what was asked; nothing was cast then.
    """

    number: int
    machine_type: str
    warnings: list[str]
    reused: bool = False


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A baked image: its name, the engine's ID of it, and whether its registry has it."""

    tag: str
    id: str
    pushed: bool


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """Which server answers."""

    version: str
    api: int
    pid: int
    home: str
    started_at: float
    executors: list[str]
    active_runs: int
