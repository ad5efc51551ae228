"""The process executor, the default without Docker. Each run is a process tree under a separate supervisor.

Where the kernel allows it (root, or user namespaces), a run has private mount and process namespaces: mounts are read-only
bind mounts, and no descendant survives. Elsewhere mounts are links to files without write bits, and descendants are
found by their parents. `isolation` says which.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from orchestrator.environments import Base, Host
from orchestrator.errors import Conflict, DiskFull, ExecutorFailed, InvalidConfig, is_disk_full
from orchestrator.executors.base import Executor, Handle, Launch, PlannedBase, Usage, Verdict
from orchestrator.executors.beside import ProcessExec
from orchestrator.executors.forkserver import PROBE, Forkserver
from orchestrator.executors.mount_points import inside, make_mount_points, make_placeholder
from orchestrator.executors.paths import GivenPaths, RunPaths
from orchestrator.executors.running_exec import RunningExec
from orchestrator.executors.verdict import phase_error, read_verdict, remove_unfinished
from orchestrator.inside.ports import reachable
from orchestrator.records.machines import CheckRecord, MachineType
from orchestrator.records.plans import READY
from orchestrator.records.ports import PortRecord
from orchestrator.spec.run import RunSpec
from orchestrator.spec.variables import check_given
from orchestrator.supervisor import identity
from orchestrator.supervisor import main as supervisor
from orchestrator.supervisor.verdict import VERSION

_MARK = "SPELL_RUN_MARK"
_ALLOW_NAMESPACES = (
    "Allow them to users, by one of: sysctl user.max_user_namespaces=10000, kernel.unprivileged_userns_clone=1 (Debian), "
    "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)."
)
_GPU_CURE = "See nvidia-smi and spell doctor; the server counts the GPUs again after: spell server stop"
_LOST_POLL_S = 0.1
_ENDING_S = 2.0  # until a run is over whose processes are killed
_TRIES = 3
_CONNECT_LIMIT_S = 5.0


class ProcessExecutor(Executor):
    """Runs commands as processes of the server's own user.

    Args:
        namespaces: False never uses private namespaces, even if the kernel allows them.
        checks_gpus: False starts commands without asking the driver whether their GPUs are there.
    """

    name = "process"

    def __init__(self, *, namespaces: bool = True, checks_gpus: bool = True) -> None:
        self._allowed, self._checks_gpus = namespaces, checks_gpus
        self._forkserver = Forkserver()

    @functools.cached_property
    def isolation(self) -> str:
        """`namespaces` or `none`."""
        if not self._allowed or sys.platform != "linux":
            return "none"
        return "namespaces" if subprocess.run(PROBE, check=False, capture_output=True).returncode == 0 else "none"

    @property
    def protects_environments(self) -> bool:
        return self.isolation == "namespaces"

    @functools.cached_property
    def holds_cores(self) -> bool:
        if sys.platform != "linux":
            return False
        try:
            os.sched_setaffinity(0, os.sched_getaffinity(0))
        except OSError:  # a sandbox forbids it
            return False
        return True

    def refuse(self, spec: RunSpec) -> None:
        check_given(spec.env, is_host=True)
        for mount in spec.mounts:
            if mount.path.startswith("/"):
                raise InvalidConfig(
                    f"The process executor cannot mount at the absolute path {mount.path!r}.",
                    "Give a path relative to the working directory, or use --executor docker.",
                )
        for asked in ("image", "apt", "network"):
            if getattr(spec, asked):
                raise InvalidConfig(
                    f"The process executor runs nothing in containers, so it cannot set {asked}.",
                    "Use --executor docker, which needs a Docker engine; see: spell doctor",
                )

    def warnings(self, spec: RunSpec, machine_type: MachineType) -> tuple[str, ...]:
        found = []
        if machine_type.memory_bytes:
            whose = "that the run asks for" if spec.memory_bytes else f"of machine type {machine_type.name!r}"
            found.append(f"The process executor reserves the memory {whose}, but cannot limit a run to it.")
        if spec.caches == "read-only" and self.isolation == "none":
            found.append("Private namespaces are not available here, so the run can write to its caches all the same.")
        if spec.mounts and self.isolation == "none" and os.geteuid() == 0:
            found.append("Private namespaces are not available here, so a run started as root can write to its mounts.")
        return tuple(found)

    def base(self, spec: RunSpec, gpus: int, log: Path, cancelled: Callable[[], bool]) -> Base:
        return Base(Host())

    def look(self, spec: RunSpec, gpus: int) -> PlannedBase:
        return PlannedBase("", READY, Base(Host()))

    def base_of(self, image: str) -> Base:
        return Base(Host())

    def run_paths(self, base: Base, given: GivenPaths) -> RunPaths:
        return RunPaths(
            code=str(given.code),
            environment=str(given.environment),
            layer=str(given.layer),
            runtime=str(given.runtime),
            metrics=str(given.metrics),
            bytecode=str(given.bytecode or ""),
            pip=f"{given.runtime}/pip" if self.protects_environments else f"{given.runtime}/copied",
            tools=(f"{given.runtime}/bin", f"{given.runtime}/tools"),
        )

    def prepare(self, launch: Launch) -> None:
        make_mount_points(launch, _link if self.isolation == "none" else make_placeholder)

    def start(self, launch: Launch, cancelled: Callable[[], bool] = lambda: False) -> Handle:
        try:
            self._write_request(launch)
            words: dict[str, Any] = {}
            for _ in range(_TRIES):  # the forkserver may be killed; the claim makes another attempt to start safe
                words = self._forkserver.start(launch.folder, launch.secrets)
                if words or (launch.folder / "claim.json").exists():
                    break
        except OSError as error:
            kind = DiskFull if is_disk_full(error) else ExecutorFailed
            raise kind(f"the supervisor could not be started: {error.strerror or error}") from error
        (launch.folder / "request.json").unlink(missing_ok=True)  # it holds the environment's values
        if "started_at" in words:
            return self._handle(launch.folder)
        if "error" in words:
            raise phase_error(words["error"])
        if "taken" in words:
            raise Conflict(f"Attempt {launch.attempt} of run {launch.number} was started before.")
        if (launch.folder / "claim.json").exists():
            return self._handle(launch.folder)  # killed after its claim: `wait` reports it
        raise ExecutorFailed(f"the supervisor did not start: {_last_line(launch.folder / 'supervisor.log')}")

    def recover(self, folder: Path) -> Handle | None:
        is_claimed = (folder / "claim.json").exists()  # checked first: making a claim needs space on the disk
        abandoned = not is_claimed and supervisor.claim(folder, supervisor.myself() | {"abandoned": True})
        for left in folder.glob("request*"):  # the server died before it removed it; the supervisor has read it
            left.unlink(missing_ok=True)
        if abandoned:
            return None
        handle = self._handle(folder)
        return None if handle.data.get("abandoned") else handle

    def wait(self, handle: Handle, timeout_s: float | None = None) -> Verdict | None:
        if not _wait_gone(handle, timeout_s):
            return None
        return _read_verdict(handle)

    def stop(self, handle: Handle, *, kill: bool) -> None:
        number = signal.SIGUSR1 if kill else signal.SIGTERM
        if sys.platform != "linux":
            if _alive(handle):
                os.kill(int(handle.data["pid"]), number)
            return
        with _pidfd(handle) as pidfd:
            if pidfd is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
                    signal.pidfd_send_signal(pidfd, signal.SIGCONT)  # a suspended supervisor must handle the signal too

    def usage(self, handle: Handle) -> Usage | None:
        if not _alive(handle):
            return None
        cpu_time_s, memory_bytes, count = 0.0, 0, 0
        for pid in identity.descendants(int(handle.data["pid"])):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                with process.oneshot():
                    times = process.cpu_times()
                    cpu_time_s += times.user + times.system + times.children_user + times.children_system
                    memory_bytes += process.memory_info().rss
                    count += 1
        return Usage(cpu_time_s, memory_bytes, count) if count else None  # over, but not reaped yet

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
        if not _alive(handle):
            raise Conflict("The run is over.")
        return ProcessExec(
            handle.data,
            command,
            {**env, _MARK: str(handle.folder)},
            cwd,
            cores if self.holds_cores else (),
            terminal=terminal,
            is_run_over=lambda: _wait_gone(handle, _ENDING_S),
        )

    def ports(self, handle: Handle) -> Sequence[PortRecord]:
        """Return its ports: a run shares the network of this machine, so they are those of its own processes."""
        if not _alive(handle):
            raise Conflict("The run is over.")
        found = set()
        for pid in identity.descendants(int(handle.data["pid"])):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                name = process.name()
                for item in process.net_connections("tcp"):
                    if item.status == psutil.CONN_LISTEN:
                        found.add((item.laddr.port, item.laddr.ip, name))
        return [PortRecord(*item) for item in sorted(found)]

    def connect(self, handle: Handle, port: int) -> socket.socket | None:
        address = next((item.address for item in self.ports(handle) if item.port == port), "")
        if not address:
            return None
        try:
            connection = socket.create_connection((reachable(address), port), _CONNECT_LIMIT_S)
        except OSError as error:
            raise ExecutorFailed(f"port {port} does not answer: {error.strerror or error}") from error
        connection.settimeout(None)
        return connection

    def checks(self, gpus: int) -> Iterator[CheckRecord]:
        if self.isolation == "namespaces":
            words = "available: mounts of a process run are read-only, and no process outlives its run"
            yield CheckRecord("namespaces", "ok", words)
            return
        yield CheckRecord(
            "namespaces",
            "warn",
            "not available: mounts of a process run are links, and only file permissions protect the store",
            "" if sys.platform != "linux" or not self._allowed else _ALLOW_NAMESPACES,
        )

    def destroy(self, handle: Handle) -> None:
        self.stop(handle, kill=True)
        if handle.data["boot_id"] == identity.boot_id():
            _wait_gone(handle, None)
            if not (handle.folder / "verdict.json").exists():
                _kill_marked(str(handle.folder))  # supervisor and reaper were both killed, so nothing ended the others
                self._forkserver.kill_orphans()
        remove_unfinished(handle.folder)

    def _handle(self, folder: Path) -> Handle:
        owner = json.loads((folder / "claim.json").read_bytes())
        return Handle(self.name, int(owner.pop("version")), folder, owner)

    def _write_request(self, launch: Launch) -> None:
        binds = []
        if self.isolation == "namespaces":
            # what something is mounted on can be neither moved nor removed
            binds += [(str(launch.home), str(launch.home), False)] if launch.home else []
            binds += [(str(path), str(path), True) for path in launch.protected]
            binds += [(str(path), str(path), False) for path in launch.writable]
            binds += [(str(cache.source), cache.target, cache.read_only) for cache in launch.caches]
            binds += [(str(bind.source), str(inside(launch, bind)), True) for bind in launch.binds]
        shell = shutil.which("bash") or "/bin/sh"
        request = {
            "version": VERSION,
            "argv": [shell, "-c", launch.command],
            "cwd": str(launch.code / launch.subdir),
            "env": {**launch.env, _MARK: str(launch.folder)},
            "log": str(launch.log),
            "isolation": self.isolation,
            "binds": binds,
            "cores": launch.cores if self.holds_cores else (),
            "gpus": {"indices": launch.gpus, "cure": _GPU_CURE} if launch.gpus and self._checks_gpus else None,
            "log_bytes": launch.log_bytes,
            "timeout_s": launch.timeout_s,
            "grace_s": launch.grace_s,
        }
        beside = launch.folder / f"request-{threading.get_ident()}.tmp"
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(request, file)
            beside.rename(launch.folder / "request.json")
        finally:
            beside.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    target.symlink_to(source)


def _alive(handle: Handle) -> bool:
    pid = int(handle.data["pid"])
    return handle.data["boot_id"] == identity.boot_id() and handle.data["start_time"] == identity.start_time(pid)


@contextlib.contextmanager
def _pidfd(handle: Handle) -> Any:
    """Yield a file descriptor of exactly the process that the handle names; None when it is gone."""
    try:
        pidfd = os.pidfd_open(int(handle.data["pid"]))
    except ProcessLookupError:
        yield None
        return
    try:
        yield pidfd if _alive(handle) else None  # checked after opening: it cannot become another process
    finally:
        os.close(pidfd)


def _wait_gone(handle: Handle, timeout_s: float | None) -> bool:
    """Wait until the supervisor has ended. Returns False when `timeout_s` passed before."""
    if sys.platform != "linux":
        with contextlib.suppress(psutil.Error):
            if _alive(handle):
                try:
                    psutil.Process(int(handle.data["pid"])).wait(timeout_s)
                except psutil.TimeoutExpired:
                    return False
        return True
    with _pidfd(handle) as pidfd:
        if pidfd is None:
            return True
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def _read_verdict(handle: Handle) -> Verdict:
    try:
        words = json.loads((handle.folder / "verdict.json").read_bytes())
    except FileNotFoundError:
        if handle.data["boot_id"] != identity.boot_id():
            return Verdict(reason="machine_restarted")
        return Verdict(reason="supervisor_lost", detail=f"process {handle.data['pid']} is gone")
    return read_verdict(words)


def _kill_marked(mark: str) -> None:
    """Kill every process whose environment names this attempt, until none is left."""
    while True:
        found = [process for process in psutil.process_iter() if _is_marked(process, mark)]
        if not found:
            return
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=_LOST_POLL_S)


def _is_marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == mark
    except psutil.Error:
        return False


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it wrote no error"
