"""The server: its machine types, its identity, and the checks of `spell doctor`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MachineType:
    """A named request for resources.

    Attributes:
        cpus: cores, may be a fraction.
        memory_bytes: None if it reserves none.
        gpus: their number.
        gpu_type, gpu_memory_bytes: the names that they may have, see `machine.Gpu`, and the least memory of each.
        pids, shm_bytes: the limits of processes and of shared memory of its containers; None for half of its memory.
    """

    name: str
    cpus: float
    memory_bytes: int | None = None
    gpus: int = 0
    pids: int = 4096
    shm_bytes: int | None = None
    gpu_type: str = ""
    gpu_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """A machine type, whether this machine can have it, and how many of it are free now."""

    name: str
    cpus: float
    memory_bytes: int | None
    gpus: int
    possible: bool
    free_now: int


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The server that answers.

    Attributes:
        config_changed: whether its configuration was changed since it started, and is not used yet.
        frameworks: the names of its sets of packages.
    """

    version: str
    api: int
    pid: int
    home: str
    started_at: float
    executors: list[str]
    active_runs: int
    config_changed: bool = False
    frameworks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """A line of `spell doctor`: the result of one check.

    Attributes:
        status: `ok`, `warn` (something is not available) or `fail` (something that is needed is broken).
        text: the finding.
        cure: what the person should do; "" for nothing.
    """

    name: str
    status: str
    text: str
    cure: str = ""
