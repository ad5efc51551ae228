"""The contract of all executors.

An executor runs one attempt of one run and says how it ended. It holds nothing in memory that it could not find again:
`recover` gets a handle back from the attempt's folder after spelld died. There is no verb for logs: the launch names the
log file. No caller asks which executor it has.

Life of an attempt: refuse/warnings (at casting) → prepare → start → wait → destroy; stop and usage at any time between
start and destroy; recover instead of start after a restart of spelld.

To add an executor: one module beside this one, one line in `server/app.py`, and `tests/test_executors.py` must pass
with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from orchestrator.records import MachineType
from orchestrator.spec import RunSpec


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of the home, shown read-only at `target`: relative to the code's root, or absolute."""

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class Launch:
    """All that an executor needs to run one attempt.

    Attributes:
        number, attempt: the run and which try of it this is (from 1).
        command: for a shell.
        code: the root of the code, writable; the run's work dir.
        subdir: the caller's directory below `code`; "" for the root itself.
        env: the run's whole environment; hidden in `repr`.
        binds: its mounts.
        environment: the root of its Python environment.
        log: the file that gets stdout and stderr, byte for byte.
        folder: the attempt's own folder; request, claim and verdict lie there.
        protected: folders of the home that the run must not change.
        writable: places below them that it may.
        gpus: indices of the GPUs it was given.
        timeout_s: stop after this running time; None for never.
        grace_s: between TERM and KILL.
    """

    number: int
    attempt: int
    command: str
    code: Path
    subdir: str
    env: Mapping[str, str] = field(repr=False)
    binds: tuple[Bind, ...]
    environment: Path
    log: Path
    folder: Path
    protected: tuple[Path, ...]
    writable: tuple[Path, ...]
    gpus: tuple[int, ...]
    timeout_s: float | None
    grace_s: float


@dataclass(frozen=True, slots=True)
class Handle:
    """Where a started attempt is: plain data, versioned, good after a restart of spelld."""

    executor: str
    version: int
    folder: Path
    data: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ended. Times in seconds since the epoch; the duration is of a monotonic clock.

    Attributes:
        exit_code, signal: one of them, unless the command never started.
        reason: an end reason of `states.ENDS` when the executor knows better than the exit code; else "".
        detail: the words that go with `reason`.
    """

    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    detail: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0
    duration_s: float = 0.0
    cpu_time_s: float = 0.0
    max_rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a running attempt uses at one moment: CPU seconds so far, resident bytes now, number of processes."""

    cpu_time_s: float
    memory_bytes: int
    processes: int


class Executor(ABC):
    """Runs commands somewhere. All methods may be called from any thread."""

    name: ClassVar[str]

    @abstractmethod
    def refuse(self, spec: RunSpec) -> None:
        """Raise `InvalidConfig` when this executor can never do what the spec asks."""

    @abstractmethod
    def warnings(self, spec: RunSpec, machine_type: MachineType) -> tuple[str, ...]:
        """What it will run but not hold to the letter, in words for the person who casts it."""

    @abstractmethod
    def prepare(self, launch: Launch) -> None:
        """Make ready what `start` needs: mount points and the like.

        Raises:
            MountFailed: when a mount cannot be placed.
        """

    @abstractmethod
    def start(self, launch: Launch) -> Handle:
        """Start the attempt. When this returns, the command runs, or has run already.

        Raises:
            PhaseFailed: when it could not be started; nothing of it is left then.
            Conflict: when the attempt was started by somebody else before.
        """

    @abstractmethod
    def recover(self, folder: Path) -> Handle | None:
        """The handle of the attempt in `folder`, after a restart of spelld.

        Returns:
            None when the attempt was never started; then it is sure that it never will be.
        """

    @abstractmethod
    def wait(self, handle: Handle, timeout_s: float | None = None) -> Verdict | None:
        """Wait for the end of the attempt; None when `timeout_s` passed before."""

    @abstractmethod
    def stop(self, handle: Handle, *, kill: bool) -> None:
        """Ask the attempt to end: TERM, grace, KILL; with `kill` at once. Returns without waiting; no error when over."""

    @abstractmethod
    def usage(self, handle: Handle) -> Usage | None:
        """What it uses now; None when it is over."""

    @abstractmethod
    def destroy(self, handle: Handle) -> None:
        """See to it that no process or other thing of the attempt is left, except its files. May be called again."""
