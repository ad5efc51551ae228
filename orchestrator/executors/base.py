"""The contract of all executors.

An executor runs one attempt of one run and says how it ended. It holds nothing in memory that it could not find again:
`recover` gets a handle back from the attempt's folder after spelld died. There is no verb for logs: the launch names the
log file. No caller asks which executor it has.

Life of an attempt: lacks/refuse/warnings (at casting) → base → run_paths → prepare → start → wait → destroy; stop, usage
and open_session at any time between start and destroy; recover instead of base … start after a restart of spelld.

To add an executor: one module beside this one, one line in `server/assembly.py`, and `tests/test_executors.py` must pass
with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from orchestrator.environments.base import Base
from orchestrator.errors import Conflict
from orchestrator.records.gc import CollectedRecord
from orchestrator.records.machines import CheckRecord, MachineType
from orchestrator.spec.run import RunSpec


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of the home, shown read-only at `target`: relative to the code's root, or absolute."""

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where a run sees what it is given; paths as the run writes them.

    Attributes:
        code, environment, runtime, metrics, bytecode: the root of the code, the Python environment, what is importable
            in every run, the file of its metrics, the folder of byte code that is not compiled yet.
        tools: folders in front of its PATH.
        path: the PATH behind them; "" for the server's.
        home: its HOME; "" for the server's.
        certificates: the CA bundle that it shall trust; "" for what the server's variables say.
        is_host: whether it sees this machine's files, and so its server and variables that name files.
    """

    code: str
    environment: str
    runtime: str
    metrics: str
    bytecode: str
    tools: tuple[str, ...] = ()
    path: str = ""
    home: str = ""
    certificates: str = ""
    is_host: bool = True


@dataclass(frozen=True, slots=True)
class Launch:
    """All that an executor needs to run one attempt. Paths are of this machine.

    Attributes:
        number, attempt: the run and which try of it this is (from 1).
        command: for a shell.
        code: the root of the code, writable; the run's work dir.
        subdir: the caller's directory below `code`; "" for the root itself.
        env: the run's whole environment, made for the executor's `run_paths`; hidden in `repr`.
        binds: its mounts.
        base: what its environment stands on.
        environment: the root of its Python environment.
        runtime: what is importable in every run.
        metrics: the file that gets its metrics.
        bytecode: where it keeps byte code of an environment that is not compiled yet; None when that is.
        scratch: an empty folder, writable, that goes with the run; may become its HOME.
        log: the file that gets stdout and stderr, byte for byte.
        folder: the attempt's own folder; request, claim and verdict lie there.
        protected: folders of the home that the run must not change.
        machine: what it asked for; a limit where the executor can hold a run to it.
        gpus: indices of the GPUs it was given.
        network: `bridge` or `none`; "" for the executor's own choice.
        timeout_s: stop after this running time; None for never.
        grace_s: between TERM and KILL.
        secrets: more variables, hidden in `repr`; they reach the command in memory only, and its log says `***` for them.
        log_bytes: how much room its log may take; None for any.
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
    log_bytes: int | None = None

    @property
    def writable(self) -> tuple[Path, ...]:
        """What below the protected folders the run may change."""
        return (self.code, self.metrics, *([self.bytecode] if self.bytecode else []))


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
        note: what else a person should know; "" for nothing.
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


class Session(ABC):
    """A command beside a run's own, in the same surroundings, with somebody at its keyboard."""

    run_is_over = False
    """Whether it ended because its run did; known when `exit_code` was asked."""

    @abstractmethod
    def read(self) -> Iterator[tuple[int, bytes]]:
        """What it says, as it comes: 1 and bytes of stdout, 2 and bytes of stderr; ends with it."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Type something; b"" ends its input."""

    @abstractmethod
    def resize(self, columns: int, rows: int) -> None:
        """The terminal has this size now."""

    @abstractmethod
    def exit_code(self) -> int:
        """How it ended; called after `read` has ended."""

    @abstractmethod
    def close(self) -> None:
        """Nobody is at its keyboard any more."""


class Executor(ABC):
    """Runs commands somewhere. All methods may be called from any thread."""

    name: ClassVar[str]
    is_chosen = False
    """Whether this machine's settings name what it needs, so that no other executor takes its place."""

    @property
    def is_expected(self) -> bool:
        """Whether this machine seems to have what it needs, even when that does not work now."""
        return True

    def lacks(self) -> str:
        """Why it can run nothing now, in words; "" when it can. Fast."""
        return ""

    @abstractmethod
    def refuse(self, spec: RunSpec) -> None:
        """Raise `InvalidConfig` when this executor can never do what the spec asks."""

    @abstractmethod
    def warnings(self, spec: RunSpec, machine_type: MachineType) -> tuple[str, ...]:
        """What it will run but not hold to the letter, in words for the person who casts it."""

    def conditions(self, spec: RunSpec, gpus: int) -> tuple[str, ...]:
        """What of a spec, and of the configuration where that says nothing, decides where its command runs, in words
        that are the same for the same. Fast.

        Args:
            gpus: how many the run has.
        """
        return ()

    def has_image(self, image: str) -> bool:
        """Whether `base` can stand on this very image, by its ID."""
        return False

    @abstractmethod
    def base(self, spec: RunSpec, gpus: int, log: Path, cancelled: Callable[[], bool]) -> Base:
        """What the environment of this run stands on; built first where it must be.

        Args:
            gpus: how many the run has.
            log: the build log; what is said is appended as it comes.
            cancelled: asked many times a second.

        Raises:
            BuildFailed, DiskFull, BuildCancelled, InvalidConfig: when there is none.
        """

    @abstractmethod
    def base_of(self, image: str) -> Base:
        """What a run was started on whose record names this image; nothing is built for it."""

    @abstractmethod
    def run_paths(
        self, base: Base, *, code: Path, environment: Path, runtime: Path, metrics: Path, bytecode: Path | None
    ) -> RunPaths:
        """Where a run will see these."""

    @abstractmethod
    def prepare(self, launch: Launch) -> None:
        """Make ready what `start` needs: mount points and the like.

        Raises:
            MountFailed: when a mount cannot be placed.
        """

    @abstractmethod
    def start(self, launch: Launch, cancelled: Callable[[], bool] = lambda: False) -> Handle:
        """Start the attempt. When this returns, the command runs, or has run already.

        Args:
            launch: what to start.
            cancelled: asked now and then by an executor whose start may take long.

        Raises:
            PhaseFailed: when it could not be started. What is left of it is found by `recover`, and destroyed.
            BuildCancelled: likewise, as asked; when this returns though it was asked, the command runs.
            Conflict: when the attempt was started by somebody else before.
        """

    @abstractmethod
    def recover(self, folder: Path) -> Handle | None:
        """The handle of the attempt in `folder`, after a restart of spelld.

        Returns:
            None when the attempt was never started; then it is sure that it never will be.

        Raises:
            ExecutorFailed: it was never started and never will be, but something of it is left; to be called again.
        """

    @abstractmethod
    def wait(self, handle: Handle, timeout_s: float | None = None) -> Verdict | None:
        """Wait for the end of the attempt; None when `timeout_s` passed before.

        Unless the verdict says that something was lost, none of its processes can write to its files any more.
        """

    @abstractmethod
    def stop(self, handle: Handle, *, kill: bool) -> None:
        """Ask the attempt to end: TERM, grace, KILL; with `kill` at once. Returns without waiting; no error when over."""

    @abstractmethod
    def usage(self, handle: Handle) -> Usage | None:
        """What it uses now; None when it is over."""

    def open_session(
        self, handle: Handle, command: Sequence[str], env: Mapping[str, str], cwd: str, *, terminal: bool
    ) -> Session:
        """Start a command beside a running attempt's own.

        Args:
            command: program and arguments; one word is a line for a shell, none the shell itself.
            env: its whole environment.
            cwd: where it starts, as the run sees it.
            terminal: whether it gets a terminal (its stderr is then part of its stdout).

        Raises:
            Conflict: when this executor cannot, or the attempt is over.
        """
        raise Conflict(
            f"A run of the {self.name} executor has no container to look into.",
            "It is an ordinary process of this machine.",
        )

    def sweep(self, needed: Callable[[int, int], bool]) -> None:  # noqa: B027  most leave nothing
        """Remove what a dead server may have left of attempts that nobody needs.

        Args:
            needed: whether a run, by number and attempt, is still led by somebody.
        """

    def gc(self, keep: set[str], older_than_s: float, *, dry_run: bool) -> list[CollectedRecord]:
        """Remove images that its runs have needed, and that nobody used for so long. Returns what went, or would go.

        Args:
            keep: images of active runs, by ID.
            older_than_s: how long nobody must have used them.
            dry_run: only tell.

        Raises:
            PhaseFailed: when that cannot be told now.
        """
        return []

    def checks(self, gpus: int) -> Iterable[CheckRecord]:
        """What `spell doctor` says about it. May take a while.

        Args:
            gpus: how many this machine has.
        """
        return ()

    @abstractmethod
    def destroy(self, handle: Handle) -> None:
        """See to it that no process or other thing of the attempt is left, except its files. May be called again.

        Raises:
            ExecutorFailed: when something may be left; then it is called again, and its machine is not free before.
        """
