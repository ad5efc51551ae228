"""What the API answers about the server: what runs can ask of its machine, who it is, and whether it is well."""

from __future__ import annotations

from dataclasses import dataclass


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
class ServerRecord:
    """Which server answers."""

    version: str
    api: int
    pid: int
    home: str
    started_at: float
    executors: list[str]
    active_runs: int


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
