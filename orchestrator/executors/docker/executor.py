"""The docker executor: each attempt in a container of its own, on the Docker engine of this machine.

The engine makes and removes the container. It is not in the way of anything else: process 1 of the container is our
keeper (`supervisor/container.py`), which writes log and verdict into files beside the run, and holds a named pipe open
as long as it lives. So a run goes on without spelld, its end is seen at once, and the engine is asked only when the
keeper could not tell.

Names in the attempt's folder (`inside/` is what the container sees of it):

    claim.json          which container; made by link(2): exactly one start or recovery of the attempt wins
    line, result, errors  and the run's log and its times; `inside/` holds second names of them, which the keeper removes
    request-NONCE       our own name of the request, until the keeper has it
    inside/request-NONCE  who takes it away takes the attempt: the keeper, or we when nothing was started
    untaken             it was we
    process.json        the container's first process, as the kernel knows it
    verdict.json        what was found out from the engine where the keeper left no result
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orchestrator
from orchestrator.config import DockerConfig
from orchestrator.content.files import remove_tree
from orchestrator.engine import Engine, EngineError
from orchestrator.environments import Base, BuildCancelled, Container
from orchestrator.errors import Conflict, DiskFull, ExecutorFailed, is_disk_full
from orchestrator.executors.base import Executor, Handle, Launch, Places, Session, Usage, Verdict
from orchestrator.executors.docker import checks, files
from orchestrator.executors.docker.exit import await_death, find_out, insist, note_process
from orchestrator.executors.docker.session import DockerSession
from orchestrator.executors.mounting import check_absolute, make_mount_points, make_placeholder
from orchestrator.executors.verdict import as_words, phase_error, read_verdict
from orchestrator.images.images import ImageRequest, Images
from orchestrator.records.gc import CollectedRecord
from orchestrator.records.machines import CheckRecord, MachineType
from orchestrator.spec.run import RunSpec
from orchestrator.supervisor import identity
from orchestrator.supervisor import main as supervisor
from orchestrator.supervisor.verdict import VERSION

_PACKAGE = Path(orchestrator.__file__).parent
_OURS = "/opt/spell"
_CODE, _HOME = "/spell", "/home/spell"
_ENVIRONMENT, _RUNTIME = f"{_OURS}/environment", f"{_OURS}/runtime"
_METRICS = f"{_OURS}/metrics.jsonl"
_INSIDE, _KEEPER, _CERTIFICATES = f"{_OURS}/inside", f"{_OURS}/keeper", f"{_OURS}/certificates.pem"
_KEPT = ("/proc", "/sys", "/dev", _OURS, _CODE, _HOME)
_BOOT = (
    f"import sys; sys.path.insert(0, {_KEEPER!r}); "
    "from orchestrator.supervisor import container; container.main(*sys.argv[1:])"
)
_LOOK_S = 0.5  # how often the engine is asked about a container whose keeper says nothing
_START_LIMIT_S = 120.0  # until a keeper says its first word
_END_LIMIT_S = 30.0  # until a keeper that was killed is gone
_LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "1"}}  # of the keeper's own start only


class DockerExecutor(Executor):
    """Runs commands in containers.

    Args:
        engine: the engine.
        images: what containers start from.
        config: `[docker]` of the configuration.
        certificates: the CA bundle that runs shall trust; None for that of their image.
    """

    name = "docker"

    def __init__(self, engine: Engine, images: Images, config: DockerConfig, certificates: Path | None = None) -> None:
        self._engine, self._images, self._config, self._certificates = engine, images, config, certificates
        self.is_chosen = engine.is_named
        self._home_key = hashlib.sha256(os.fsencode(engine.home.root)).hexdigest()[:8]

    @property
    def is_expected(self) -> bool:
        return bool(self._engine.host)

    def lacks(self) -> str:
        return self._engine.lacks()

    def refuse(self, spec: RunSpec) -> None:
        for mount in spec.mounts:
            if mount.path.startswith("/"):
                check_absolute(mount.path, _KEPT, _CODE)

    def warnings(self, spec: RunSpec, machine_type: MachineType) -> tuple[str, ...]:
        if machine_type.memory_bytes and not self._engine.info.get("MemoryLimit", True):
            return (f"This engine cannot hold a run to the memory of machine type {machine_type.name!r}.",)
        return ()

    def conditions(self, spec: RunSpec, gpus: int) -> tuple[str, ...]:
        image = self._images.reference(ImageRequest.of(spec, gpus))
        return (image, spec.python, spec.network or self._config.network, *sorted(set(spec.apt)))

    def has_image(self, image: str) -> bool:
        return self._images.has(image)

    def base(self, spec: RunSpec, gpus: int, log: Path, cancelled: Callable[[], bool]) -> Base:
        image = self._images.ensure(ImageRequest.of(spec, gpus), log, cancelled)
        return Base(Container(self._engine, image.id), image.id, image.python, image.path)

    def base_of(self, image: str) -> Base:
        return Base(Container(self._engine, image), image, path=self._images.path(image))

    def places(
        self, base: Base, *, code: Path, environment: Path, runtime: Path, metrics: Path, bytecode: Path | None
    ) -> Places:
        return Places(
            code=_CODE,
            environment=_ENVIRONMENT,
            runtime=_RUNTIME,
            metrics=_METRICS,
            bytecode=f"{_HOME}/.bytecode" if bytecode else "",  # its own: what others share, they could put code into
            path=base.path,
            home=_HOME,
            certificates=_CERTIFICATES if self._certificates else "",
            is_here=False,
        )

    def prepare(self, launch: Launch) -> None:
        make_mount_points(launch, make_placeholder)

    def start(self, launch: Launch, cancelled: Callable[[], bool] = lambda: False) -> Handle:
        folder, nonce = launch.folder, secrets.token_hex(4)
        container = f"spell-{self._home_key}-{launch.number}-a{launch.attempt}-{nonce}"
        try:
            handle = self._claim(launch, container, nonce)
            files.make_files(folder, launch.log, has_secrets=bool(launch.secrets))
        except OSError as error:
            kind = DiskFull if is_disk_full(error) else ExecutorFailed
            raise kind(f"{error.filename}: {error.strerror}") from error
        with files.opened(folder / "line") as line, files.telling(folder, launch.secrets):
            try:
                with self._engine.told():
                    self._engine.api.create_container_from_config(self._container(launch, nonce), container)
                    self._engine.api.start(container)
                note_process(self._engine, container, folder)  # while its keeper is still loading
                self._await_keeper(line, container, launch, cancelled)
            except (ExecutorFailed, BuildCancelled) as error:
                if files.take_back(handle.folder, str(handle.data["nonce"])):
                    raise _with_cure(error) from error
                # its keeper has the request: whatever became of the engine's answer, it was started
            files.forget_request(folder, nonce)
            self._read_word(line, container, launch)
        return handle

    def recover(self, folder: Path) -> Handle | None:
        is_claimed = (folder / "claim.json").exists()  # asked first: a claim needs room on the disk
        if not is_claimed and supervisor.claim(folder, supervisor.myself() | {"abandoned": True}):
            for left in folder.rglob(files.request_name("*")):
                left.unlink()  # it holds the environment's values
            return None
        handle = self._handle(folder)
        if "container" not in handle.data:
            return None
        if not files.take_back(handle.folder, str(handle.data["nonce"])):
            return handle
        self._engine.remove(str(handle.data["container"]))
        remove_tree(folder / "inside")
        return None

    def wait(self, handle: Handle, timeout_s: float | None = None) -> Verdict | None:
        container = str(handle.data["container"])
        with files.opened(handle.folder / "line") as line:
            if not files.await_end(line, timeout_s):
                return None
        is_same_boot = handle.data["boot_id"] == identity.boot_id()
        if is_same_boot and not await_death(self._engine, container, handle.folder):
            return Verdict(reason="supervisor_lost", detail=f"nobody can say whether {container} has ended")
        words = files.read(handle.folder / "result") or files.read(handle.folder / "verdict.json")
        if words is None:
            words = as_words(find_out(self._engine, handle), VERSION)
            files.publish(handle.folder / "verdict.json", words)
        return read_verdict(words)

    def stop(self, handle: Handle, *, kill: bool) -> None:
        if files.is_over(handle.folder):
            return
        try:
            with self._engine.told():
                self._engine.api.kill(handle.data["container"], "SIGUSR1" if kill else "SIGTERM")
        except EngineError as error:
            if error.status not in (404, 409):  # it is over, or not there
                raise
        if kill:  # who is told may be no keeper of ours: a run can replace the Python that it runs on
            args = self._engine, str(handle.data["container"]), handle.folder / "line"
            threading.Thread(target=insist, args=args, name="insist", daemon=True).start()

    def usage(self, handle: Handle) -> Usage | None:
        if files.is_over(handle.folder) or self._engine.info.get("CgroupDriver") == "none":
            return None  # without control groups the engine would tell of the whole machine
        try:
            with self._engine.told():
                found = self._engine.api.stats(handle.data["container"], stream=False, one_shot=True)
        except EngineError:
            if files.is_over(handle.folder):
                return None
            raise
        memory = found["memory_stats"]
        if "usage" not in memory:
            return None  # over
        cache = memory.get("stats", {})
        cached = int(cache.get("total_inactive_file", cache.get("inactive_file", 0)))  # cgroup v1, v2
        cpu_time_s = found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        return Usage(cpu_time_s, max(0, int(memory["usage"]) - cached), int(found["pids_stats"].get("current", 1)))

    def open_session(
        self, handle: Handle, command: Sequence[str], env: Mapping[str, str], cwd: str, *, terminal: bool
    ) -> Session:
        if files.is_over(handle.folder):
            raise Conflict("The run is over.")
        return DockerSession(self._engine, str(handle.data["container"]), command, env, cwd, terminal=terminal)

    def sweep(self, needed: Callable[[int, int], bool]) -> None:
        with self._engine.told():
            wanted = [f"{name}={value}" for name, value in self._engine.labels(role="run").items()]
            found = self._engine.api.containers(all=True, filters={"label": wanted})
        for container in found:
            # by name: labels may be those of an image, of anybody's
            ours = re.match(rf"/spell-{self._home_key}-(\d+)-a(\d+)-", (container.get("Names") or [""])[0])
            if ours and not needed(int(ours[1]), int(ours[2])):
                self._engine.remove(container["Id"])

    def collect(self, keep: set[str], older_than_s: float, *, dry_run: bool) -> list[CollectedRecord]:
        return self._images.collect(keep, older_than_s, dry_run=dry_run)

    def checks(self, gpus: int) -> Iterator[CheckRecord]:
        return checks.checks(self._engine, self._config, gpus)

    def destroy(self, handle: Handle) -> None:
        self.stop(handle, kill=True)
        with files.opened(handle.folder / "line") as line:
            files.await_end(line, _END_LIMIT_S)
        if files.read(handle.folder / "result") is None:
            self.wait(handle, 0)  # what only the engine knows is asked before the container goes
        self._engine.remove(str(handle.data["container"]))
        remove_tree(handle.folder / "inside")  # whatever the run has put there

    # -- starting -----------------------------------------------------------------------------------------------

    def _claim(self, launch: Launch, container: str, nonce: str) -> Handle:
        inside = launch.folder / "inside"
        inside.mkdir(mode=0o700, exist_ok=True)
        request = {
            "version": VERSION,
            "command": launch.command,
            "cwd": f"{_CODE}/{launch.subdir}".rstrip("/"),
            "env": dict(launch.env),
            "isolation": "container",
            "log_bytes": launch.log_bytes,
            "timeout_s": launch.timeout_s,
            "grace_s": launch.grace_s,
        }
        path = files.write_request(launch.folder, nonce, request)
        owner = {"version": VERSION, "boot_id": identity.boot_id(), "container": container, "nonce": nonce}
        if not supervisor.claim(launch.folder, owner):
            path.unlink()
            files.forget_request(launch.folder, nonce)
            raise Conflict(f"Attempt {launch.attempt} of run {launch.number} was started before.")
        return self._handle(launch.folder)

    def _container(self, launch: Launch, nonce: str) -> dict[str, Any]:
        """What the engine is asked for. Nothing of it comes from a spec, except what is checked or only named."""
        api, machine = self._engine.api, launch.machine
        memory = machine.memory_bytes
        host: dict[str, Any] = {
            **self._engine.confinement(machine.pids, self._config.options),
            "mounts": [*self._config.options.get("mounts", ()), *self._mounts(launch)],
            "network_mode": launch.network or self._config.network,
            "nano_cpus": int(machine.cpus * 1e9),
            "shm_size": machine.shm_bytes or (memory or _machine_memory()) // 2,
            "log_config": _LOG_CONFIG,
            "init": False,  # our keeper is: below another one, a command could kill it
        }
        if memory:
            host |= {"mem_limit": memory, "memswap_limit": memory}
        env = ["NVIDIA_VISIBLE_DEVICES=void"]
        if launch.gpus:
            env = []
            ids = [str(index) for index in launch.gpus]
            wanted = [["gpu", "compute", "utility"]]
            host["device_requests"] = [{"Driver": "", "Count": 0, "DeviceIDs": ids, "Capabilities": wanted}]
        try:
            host_config = api.create_host_config(**host)
        except checks.refusals() as error:
            raise ExecutorFailed(f"[docker.options] of the configuration: {error}", "See: spell doctor") from error
        return dict(
            api.create_container_config(
                launch.base.image,
                command=["-I", "-S", "-B", "-c", _BOOT, _INSIDE, files.request_name(nonce)],
                entrypoint=[launch.base.python],
                hostname=f"run-{launch.number}",
                user=self._engine.user,
                working_dir="/",
                environment=env,
                labels=self._engine.labels(role="run", run=launch.number, attempt=launch.attempt),
                healthcheck={"test": ["NONE"]},
                host_config=host_config,
            )
        )

    def _mounts(self, launch: Launch) -> Iterator[dict[str, Any]]:
        yield _bind(launch.code, _CODE)
        yield _bind(launch.scratch, _HOME)
        yield _bind(launch.metrics, _METRICS)
        yield _bind(launch.folder / "inside", _INSIDE)
        yield _bind(launch.environment, _ENVIRONMENT, read_only=True)
        yield _bind(launch.runtime, _RUNTIME, read_only=True)
        yield _bind(_PACKAGE, f"{_KEEPER}/orchestrator", read_only=True)
        if self._certificates:
            yield _bind(self._certificates, _CERTIFICATES, read_only=True)
        for bind in launch.binds:
            target = bind.target if bind.target.startswith("/") else f"{_CODE}/{bind.target}"
            yield _bind(bind.source.resolve(), target, read_only=True)

    def _await_keeper(self, line: int, container: str, launch: Launch, cancelled: Callable[[], bool]) -> None:
        """Wait until the keeper says something or is gone.

        Raises:
            ExecutorFailed: it never came, or not in time.
            BuildCancelled: as asked.
        """
        deadline = time.monotonic() + _START_LIMIT_S
        while not files.has_word(line, _LOOK_S):
            if cancelled():
                raise BuildCancelled("stopped before its keeper had started")
            with self._engine.told():
                state = self._engine.api.inspect_container(container)["State"]
            if not state["Running"] and not files.has_word(line, 0):
                raise ExecutorFailed(f"its keeper did not start: {self._last_words(container, launch.folder)}")
            if time.monotonic() > deadline:
                raise ExecutorFailed(f"its keeper did not start within {_START_LIMIT_S:g} s")

    def _read_word(self, line: int, container: str, launch: Launch) -> None:
        """Read what the keeper says first.

        Raises:
            PhaseFailed: it could not start the command, or is gone without a word.
            Conflict: somebody else took the attempt.
        """
        if not files.has_word(line, _START_LIMIT_S):
            raise ExecutorFailed(f"its keeper said nothing within {_START_LIMIT_S:g} s")
        said = os.read(line, 65536).splitlines()
        if not said:
            raise ExecutorFailed(f"its keeper was killed: {self._last_words(container, launch.folder)}")
        try:
            words = dict(json.loads(said[0]))
            error = dict(words.get("error") or {})
        except (ValueError, TypeError, RecursionError):
            raise ExecutorFailed(f"its keeper does not speak as ours does: {said[0][:80]!r}") from None
        if error:
            raise phase_error(error)
        if "taken" in words:
            self._engine.remove(container)  # it should end by itself
            raise Conflict(f"Attempt {launch.attempt} of run {launch.number} was taken by another server.")

    def _last_words(self, container: str, folder: Path) -> str:
        said = files.read_end(folder / "errors")
        if not said:
            with contextlib.suppress(EngineError), self._engine.told():
                said = self._engine.api.logs(container, tail=5).decode(errors="replace")
        return said.strip().rpartition("\n")[2] or "it said nothing"

    def _handle(self, folder: Path) -> Handle:
        owner = json.loads((folder / "claim.json").read_bytes())
        return Handle(self.name, int(owner.pop("version")), folder, owner)


def _with_cure(error: ExecutorFailed | BuildCancelled) -> ExecutorFailed | BuildCancelled:
    """The same, and what to do, where that is known."""
    if isinstance(error, ExecutorFailed) and "could not select device driver" in error.message:
        return ExecutorFailed(f"the engine cannot give GPUs to containers ({error.message}); the cure: spell doctor")
    return error


def _bind(source: Path, target: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
