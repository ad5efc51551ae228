"""The contract of all executors.

An executor runs one attempt of one run and returns how it ended. It keeps nothing in memory that it could not find again:
`recover` gets a handle back from the attempt's folder after spelld died. Logs need no method: the launch names the log
file. No caller asks which executor it has.

Calls for one attempt: lacks/refuse/warnings (when it is cast) → base → run_paths → prepare → start → wait → destroy; stop,
usage, open_exec, ports and connect at any time between start and destroy; after a restart of spelld, recover instead of base … start.

To add an executor: one module beside this one, one line in `server/assembly.py`, and `tests/test_executors.py` must pass
with it.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

from orchestrator.environments.base import Base
from orchestrator.errors import Conflict
from orchestrator.executors.paths import GivenPaths, RunPaths
from orchestrator.executors.running_exec import RunningExec
from orchestrator.records.gc import RemovedRecord
from orchestrator.records.machines import CheckRecord, MachineType
from orchestrator.records.ports import PortRecord
from orchestrator.spec.run import RunSpec

UV_IN_CONTAINERS = "/opt/spell/uv"
"""Where a container sees spell's own uv."""
ENVIRONMENT_IN_CONTAINERS, LAYER_IN_CONTAINERS = "/opt/spell/environment", "/opt/spell/layer"
"""Where a container sees its environment, and its layer."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of the home, shown read-only at `target`: relative to the code's root, or absolute.

    `resource` is its name for the person.
    """

    source: Path
    target: str
    resource: str = "RESOURCE"


@dataclass(frozen=True, slots=True)
class CacheBind:
    """A folder of this machine for caches, at the absolute path `target`, where the run may write unless it may only read."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """All that an executor needs to run one attempt. Paths are of this machine.

    Attributes:
        number, attempt: the run, and the number of this attempt (from 1).
        command: a line for a shell.
        code: the root of the code, writable; the run's work dir.
        subdir: the caller's directory below `code`; "" for the root itself.
        env: all environment variables of the run, made for the executor's `run_paths`; hidden in `repr`.
        binds: the mounts.
        base: what the Python environment was built on.
        environment: the root of the Python environment.
        layer: the run's own layer over it, to which it may install packages.
        runtime: what every run has beside its own; see `lifecycle/runtime_files.py`.
        metrics: the file for the run's metrics.
        bytecode: the folder for byte code; None when the environment is compiled.
        scratch: an empty, writable folder that is removed with the run; may become its HOME.
        log: the file that gets stdout and stderr, byte for byte.
        folder: the attempt's folder, which holds request, claim and verdict.
        home: the home, which the run must not move or remove; None where it lies in none.
        protected: files and folders, most of them of the home, that the run must not change.
        machine: the machine type; a limit where the executor can enforce it.
        gpus: indices of the GPUs that the run was given.
        cores: indices of the cores that the run was given; empty for any.
        network: `bridge` or `none`; "" for the executor's own choice.
        timeout_s: stop the run after this running time; None for never.
        grace_s: time between TERM and KILL.
        secrets: further variables, hidden in `repr`; they reach the command only in memory, and its log shows `***`.
        log_bytes: the most disk space that the log may take; None for no limit.
        caches: what it has of the caches that runs share.
    """

    number: int
    attempt: int
    command: str
    code: Path
    subdir: str
    env: Mapping[str, str] = field(repr=False)
    binds: tuple[Bind, ...]
    base: Base
    environment: Path
    layer: Path
    runtime: Path
    metrics: Path
    bytecode: Path | None
    scratch: Path
    log: Path
    folder: Path
    protected: tuple[Path, ...]
    machine: MachineType
    gpus: tuple[int, ...]
    network: str
    timeout_s: float | None
    grace_s: float
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    cores: tuple[int, ...] = ()
    log_bytes: int | None = None
    home: Path | None = None
    caches: tuple[CacheBind, ...] = ()

    @property
    def writable(self) -> tuple[Path, ...]:
        """Paths below the protected folders that the run may change."""
        return (self.code, self.layer, self.metrics, *([self.bytecode] if self.bytecode else []))


@dataclass(frozen=True, slots=True)
class Handle:
    """Identifies a started attempt: plain data, versioned, valid after a restart of spelld."""

    executor: str
    version: int
    folder: Path
    data: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ended. Times are in seconds since the epoch; the duration is measured by a monotonic clock.

    Attributes:
        exit_code, signal: one of them is set, unless the command never started.
        reason: an end reason of `states.ENDS` when the executor knows more than the exit code; else "".
        detail: the detail of `reason`, as text.
        note: a further remark for the user; "" for none.
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
    note: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a running attempt uses at one moment: CPU seconds so far, resident bytes now, number of processes."""

    cpu_time_s: float
    memory_bytes: int
    processes: int


class PlannedBase(NamedTuple):
    """What `Executor.base` would have to do.

    Attributes:
        image: the name of the image; "" for this machine.
        state: `ready`, `pull` or `build`.
        base: what it would return; None where only doing it will tell.
    """

    image: str
    state: str
    base: Base | None


class Executor(ABC):
    """Runs the commands of runs. All methods may be called from any thread."""

    name: ClassVar[str]
    is_chosen = False
    """Whether the configuration names what it needs, so that no other executor takes its place."""

    @property
    def protects_environments(self) -> bool:
        """Whether its runs are kept from changing the environment that they use."""
        return True

    @property
    def is_expected(self) -> bool:
        """Whether this machine seems to have what it needs, even if that does not work now."""
        return True

    @property
    def holds_cores(self) -> bool:
        """Whether a run can use no other cores than those of its launch."""
        return False

    def lacks(self) -> str:
        """Return why it can run nothing now; "" when it can. Fast."""
        return ""

    @abstractmethod
    def refuse(self, spec: RunSpec) -> None:
        """Raise `InvalidConfig` when this executor can never do what the spec asks."""

    @abstractmethod
    def warnings(self, spec: RunSpec, machine_type: MachineType) -> tuple[str, ...]:
        """Return what it cannot fulfil of this spec though it runs it, as sentences for the user."""

    def conditions(self, spec: RunSpec, gpus: int) -> tuple[str, ...]:
        """Return the settings of the spec, or else of the configuration, that decide where its command runs, as text that
        is equal for equal settings. Fast.

        Args:
            gpus: how many the run has.
        """
        return ()

    def has_image(self, image: str) -> bool:
        """Whether `base` can use exactly this image (an ID)."""
        return False

    @abstractmethod
    def base(self, spec: RunSpec, gpus: int, log: Path, cancelled: Callable[[], bool]) -> Base:
        """Return what the environment of this run is built on; builds it first if necessary.

        Args:
            gpus: how many the run has.
            log: the build log; output is appended as it comes.
            cancelled: called many times a second.

        Raises:
            BuildFailed, DiskFull, BuildCancelled, InvalidConfig: when it cannot be built.
        """

    @abstractmethod
    def look(self, spec: RunSpec, gpus: int) -> PlannedBase:
        """Return what `base` would have to do; builds nothing.

        Raises:
            BuildFailed, EngineError: as `base`, where that can be known now.
        """

    @abstractmethod
    def base_of(self, image: str) -> Base:
        """Return the base of an earlier run whose record names this image. Builds nothing."""

    @abstractmethod
    def run_paths(self, base: Base, given: GivenPaths) -> RunPaths:
        """Return the paths at which a run will see what it is given."""

    @abstractmethod
    def prepare(self, launch: Launch) -> None:
        """Prepare what `start` needs: mount points and the like.

        Raises:
            MountFailed: when a mount cannot be placed.
        """

    @abstractmethod
    def start(self, launch: Launch, cancelled: Callable[[], bool] = lambda: False) -> Handle:
        """Start the attempt. When this returns, the command runs, or has run already.

        Args:
            launch: what to start.
            cancelled: called from time to time by an executor whose start may take long.

        Raises:
            PhaseFailed: when it could not be started. `recover` finds what is left of it, so that it can be destroyed.
            BuildCancelled: likewise, when cancelled; if this returns nevertheless, the command runs.
            Conflict: when the attempt was started before.
        """

    @abstractmethod
    def recover(self, folder: Path) -> Handle | None:
        """Return the handle of the attempt in `folder`, after a restart of spelld.

        Returns:
            None when the attempt was never started; then it is certain that it never will be.

        Raises:
            ExecutorFailed: it was never started and never will be, but something of it is left; call this again.
        """

    @abstractmethod
    def wait(self, handle: Handle, timeout_s: float | None = None) -> Verdict | None:
        """Wait for the end of the attempt. Returns None when `timeout_s` passed before.

        Unless the verdict says that something was lost, no process of the attempt can write to its files any more.
        """

    @abstractmethod
    def stop(self, handle: Handle, *, kill: bool) -> None:
        """End the attempt by TERM, grace time, KILL; with `kill` by KILL at once. Does not wait. No error when it is over."""

    @abstractmethod
    def usage(self, handle: Handle) -> Usage | None:
        """Return what it uses now; None when it is over."""

    def open_exec(
        self,
        handle: Handle,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        cores: Sequence[int],
        *,
        terminal: bool,
    ) -> RunningExec:
        """Start an additional command beside that of a running attempt: in its container, or its namespaces.

        Args:
            command: program and arguments; a single word is a line for a shell; empty for the shell itself.
            env: all its environment variables.
            cwd: its working directory, as the run sees it.
            cores: those that the run was given; empty for any.
            terminal: whether it gets a terminal (its stderr is then merged into its stdout).

        Raises:
            Conflict: this executor cannot do it, or the attempt is over.
        """
        raise Conflict(f"No command can be started beside a run of the {self.name} executor.")

    def ports(self, handle: Handle) -> Sequence[PortRecord]:
        """Return the TCP ports that processes of a running attempt listen on, in order.

        Raises:
            Conflict: this executor has no ports, or the attempt is over.
            ExecutorFailed: they cannot be known now.
        """
        raise Conflict(f"A run of the {self.name} executor has no ports.")

    def connect(self, handle: Handle, port: int) -> socket.socket | None:
        """Return a connection to a TCP port that a process of a running attempt listens on; None where none does.

        Raises:
            Conflict, ExecutorFailed: as of `ports`; also when the port does not answer.
        """
        raise Conflict(f"A run of the {self.name} executor has no ports.")

    def sweep(self, needed: Callable[[int, int], bool]) -> None:  # noqa: B027  most executors leave nothing
        """Remove what a dead server may have left of attempts that are no longer led.

        Args:
            needed: returns whether a run, by number and attempt, is still led by this server.
        """

    def gc(self, keep: set[str], older_than_s: float, *, dry_run: bool) -> list[RemovedRecord]:
        """Remove images of its runs that were not used for this time. Returns what was, or would be, removed.

        Args:
            keep: images of active runs, by ID.
            older_than_s: for how long an image must have been unused.
            dry_run: remove nothing.

        Raises:
            PhaseFailed: when the images cannot be listed now.
        """
        return []

    def checks(self, gpus: int) -> Iterable[CheckRecord]:
        """Return the checks of `spell doctor` for this executor. May take a while.

        Args:
            gpus: how many this machine has.
        """
        return ()

    @abstractmethod
    def destroy(self, handle: Handle) -> None:
        """Remove every process and other thing of the attempt, except its files. May be called again.

        Raises:
            ExecutorFailed: when something may be left; its machine is not free until a later call succeeds.
        """
