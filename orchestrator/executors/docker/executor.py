"""The docker executor: each attempt runs in a separate container, on the Docker engine of this machine.

The engine only makes and removes the container. Process 1 of the container is our reaper (`supervisor/container.py`), which
writes log and verdict into files beside the run, and holds a named pipe open while it lives. So a run goes on without
spelld, its end is seen at once, and the engine is asked only when the reaper left no verdict.

Files in the attempt's folder (the container sees `inside/`):

    claim.json          which container; made by link(2): exactly one start or recovery of the attempt wins
    line, result, errors  and the run's log and its times; `inside/` holds hard links to them, which the reaper removes
    request-NONCE       our hard link to the request, until the reaper has it
    inside/request-NONCE  removing it takes the attempt: done by the reaper, or by us when nothing was started
    untaken             the request, when we took it
    process.json        the container's first process, as the kernel knows it
    verdict.json        what the engine says about the end, where the reaper left no result
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.config import DockerConfig
from orchestrator.content.files import remove_tree
from orchestrator.engine import Engine, EngineError
from orchestrator.environments import Base, BuildCancelled, refuse_repositories
from orchestrator.errors import Conflict, DiskFull, ExecutorFailed, is_disk_full
from orchestrator.executors import mount_points
from orchestrator.executors.base import Executor, Handle, Launch, PlannedBase, Usage, Verdict
from orchestrator.executors.docker import checks, files, places
from orchestrator.executors.docker.exec import DockerExec
from orchestrator.executors.docker.exit import await_death, find_out, insist, note_process
from orchestrator.executors.docker.places import mounts
from orchestrator.executors.docker.ports import Ports
from orchestrator.executors.docker.report import await_reaper, read_word
from orchestrator.executors.docker.usage import usage
from orchestrator.executors.paths import GivenPaths, RunPaths
from orchestrator.executors.running_exec import RunningExec
from orchestrator.executors.verdict import as_words, read_verdict, remove_unfinished
from orchestrator.images.image_request import ImageRequest
from orchestrator.images.images import Images
from orchestrator.records.gc import RemovedRecord
from orchestrator.records.machines import CheckRecord, MachineType
from orchestrator.records.ports import PortRecord
from orchestrator.spec.run import RunSpec
from orchestrator.spec.variables import CAPABILITIES, capabilities, check_given
from orchestrator.supervisor import identity
from orchestrator.supervisor import main as supervisor
from orchestrator.supervisor.verdict import VERSION

_log = logging.getLogger(__name__)
_KEPT = ("/proc", "/sys", "/dev", places.OURS, places.CODE, places.HOME)
_BOOT = (
    f"import sys; sys.path.insert(0, {places.REAPER!r}); "
    "from orchestrator.supervisor import container; container.main(*sys.argv[1:])"
)
_GPU_CURE = (
    "The engine gave its container fewer than it was told to, as podman does with a Docker client: use Docker with NVIDIA's "
    "container toolkit, or --executor process. See: spell doctor"
)
_REFUSES_CORES = re.compile(r"Requested CPUs|cpuset")  # the first is of dockerd, when it makes a container
_END_LIMIT_S = 30.0  # until a reaper that was killed is gone
_LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "1"}}  # only for a reaper's own errors


class DockerExecutor(Executor):
    """Runs commands in containers.

    Args:
        engine: the engine.
        images: the images of containers.
        config: `[docker]` of the configuration.
        certificates: the CA bundle that runs trust; None for that of their image.
    """

    name = "docker"

    def __init__(self, engine: Engine, images: Images, config: DockerConfig, certificates: Path | None = None) -> None:
        self._engine, self._images, self._config, self._certificates = engine, images, config, certificates
        self.is_chosen = engine.is_named
        self._ports = Ports(engine)
        self._home_key = hashlib.sha256(os.fsencode(engine.key)).hexdigest()[:8]

    @property
    def is_expected(self) -> bool:
        return bool(self._engine.host)

    @property
    def holds_cores(self) -> bool:
        return self._engine.holds_cores

    def lacks(self) -> str:
        return self._engine.lacks()

    def refuse(self, spec: RunSpec) -> None:
        check_given(spec.env, is_host=False)
        for mount in spec.mounts:
            if mount.path.startswith("/"):
                mount_points.check_absolute(mount.path, _KEPT, places.CODE)
        refuse_repositories(spec.pip, spec.requirements)

    def warnings(self, spec: RunSpec, machine_type: MachineType) -> tuple[str, ...]:
        if machine_type.memory_bytes and not self._engine.info.get("MemoryLimit", True):
            whose = "that it asks for" if spec.memory_bytes else f"of machine type {machine_type.name!r}"
            return (f"This Docker engine cannot limit a run to the memory {whose}.",)
        return ()

    def conditions(self, spec: RunSpec, gpus: int) -> tuple[str, ...]:
        image = self._images.reference(ImageRequest.of(spec, gpus))
        return (image, spec.python, spec.network or self._config.network, *sorted(set(spec.apt)))

    def has_image(self, image: str) -> bool:
        return self._images.has(image)

    def base(self, spec: RunSpec, gpus: int, log: Path, cancelled: Callable[[], bool]) -> Base:
        return self._images.ensure(ImageRequest.of(spec, gpus), log, cancelled).base(self._engine)

    def look(self, spec: RunSpec, gpus: int) -> PlannedBase:
        name, state, image = self._images.look(ImageRequest.of(spec, gpus))
        return PlannedBase(name, state, image.base(self._engine) if image else None)

    def base_of(self, image: str) -> Base:
        return self._images.base_of(image)

    def run_paths(self, base: Base, given: GivenPaths) -> RunPaths:
        return RunPaths(
            code=places.CODE,
            environment=places.ENVIRONMENT,
            layer=places.LAYER,
            runtime=places.RUNTIME,
            metrics=places.METRICS,
            bytecode=f"{places.HOME}/.bytecode"
            if given.bytecode
            else "",  # private: others could put code into a shared one
            pip=places.PIP,
            tools=(f"{places.RUNTIME}/tools",),
            path=base.path,
            pythonpath=base.pythonpath,
            variables=base.variables,
            home=places.HOME,
            certificates=places.CERTIFICATES if self._certificates else "",
            is_host=False,
            caches=places.CACHES,
        )

    def prepare(self, launch: Launch) -> None:
        mount_points.make_mount_points(launch, mount_points.make_placeholder)
        mount_points.check_python(launch)

    def start(self, launch: Launch, cancelled: Callable[[], bool] = lambda: False) -> Handle:
        folder, nonce = launch.folder, secrets.token_hex(4)
        container = f"spell-{self._home_key}-{launch.number}-a{launch.attempt}-{nonce}"
        try:
            handle = self._claim(launch, container, nonce)
            files.make_files(folder, launch.log, has_secrets=bool(launch.secrets))
        except OSError as error:
            kind = DiskFull if is_disk_full(error) else ExecutorFailed
            raise kind(f"{error.filename}: {error.strerror}") from error
        with files.opened(folder / "line") as line, files.secrets_pipe(folder, launch.secrets):
            try:
                self._begin(launch, nonce, container)
                note_process(self._engine, container, folder)  # while its reaper is still loading
                await_reaper(self._engine, line, container, launch, cancelled)
            except (ExecutorFailed, BuildCancelled) as error:
                if files.take_back(handle.folder, str(handle.data["nonce"])):
                    raise mount_points.mount_refused(launch, error.message) or _with_cure(error) from error
                # its reaper has the request, so it was started, whatever the engine answered
            files.forget_request(folder, nonce)
            read_word(self._engine, line, container, launch)
        return handle

    def recover(self, folder: Path) -> Handle | None:
        is_claimed = (folder / "claim.json").exists()  # checked first: making a claim needs space on the disk
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
            return Verdict(reason="supervisor_lost", detail=f"the engine does not say whether {container} has ended")
        words = files.read(handle.folder / "result") or files.read(handle.folder / "verdict.json")
        if words is None:
            words = as_words(find_out(self._engine, handle), VERSION)
            files.publish(handle.folder / "verdict.json", words)
        return read_verdict(words)

    def stop(self, handle: Handle, *, kill: bool) -> None:
        if files.is_over(handle.folder):
            return
        try:
            with self._engine.translated_errors():
                self._engine.api.kill(handle.data["container"], "SIGUSR1" if kill else "SIGTERM")
        except EngineError as error:
            if error.status not in (404, 409):  # it is over, or does not exist
                raise
        if kill:  # the process may not be our reaper: a run can replace the Python that the reaper runs on
            args = self._engine, str(handle.data["container"]), handle.folder / "line"
            threading.Thread(target=insist, args=args, name="insist", daemon=True).start()

    def usage(self, handle: Handle) -> Usage | None:
        return usage(self._engine, handle)

    def open_exec(
        self,
        handle: Handle,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        cores: Sequence[int],  # the container's own
        *,
        terminal: bool,
    ) -> RunningExec:
        self._check_alive(handle)
        return DockerExec(self._engine, str(handle.data["container"]), command, env, cwd, terminal=terminal)

    def ports(self, handle: Handle) -> Sequence[PortRecord]:
        with self._of_living(handle) as container:
            return self._ports.list(container, handle.folder)

    def connect(self, handle: Handle, port: int) -> socket.socket | None:
        with self._of_living(handle) as container:
            return self._ports.connect(container, handle.folder, port)

    @contextlib.contextmanager
    def _of_living(self, handle: Handle) -> Iterator[str]:
        """Yield its container. An error that its end has caused is a `Conflict`."""
        self._check_alive(handle)
        try:
            yield str(handle.data["container"])
        except ExecutorFailed:
            self._check_alive(handle)
            raise

    @staticmethod
    def _check_alive(handle: Handle) -> None:
        if files.is_over(handle.folder):
            raise Conflict("The run is over.")

    def sweep(self, needed: Callable[[int, int], bool]) -> None:
        with self._engine.translated_errors():
            found = self._engine.api.containers(all=True, filters={"label": self._engine.ours("run")})
        for container in found:
            # by name: labels may come from any image
            ours = re.match(rf"/spell-{self._home_key}-(\d+)-a(\d+)-", (container.get("Names") or [""])[0])
            if ours and not needed(int(ours[1]), int(ours[2])):
                self._engine.remove(container["Id"])

    def gc(self, keep: set[str], older_than_s: float, *, dry_run: bool) -> list[RemovedRecord]:
        return self._images.gc(keep, older_than_s, dry_run=dry_run)

    def checks(self, gpus: int) -> Iterator[CheckRecord]:
        return checks.checks(self._engine, self._config, gpus)

    def destroy(self, handle: Handle) -> None:
        self._ports.forget(str(handle.data["container"]))
        self.stop(handle, kill=True)
        with files.opened(handle.folder / "line") as line:
            files.await_end(line, _END_LIMIT_S)
        if files.read(handle.folder / "result") is None:
            self.wait(handle, 0)  # asks what only the engine knows, before the container is removed
        self._engine.remove(str(handle.data["container"]))
        remove_tree(handle.folder / "inside")  # the run may have put files there
        remove_unfinished(handle.folder)

    # -- starting -----------------------------------------------------------------------------------------------

    def _claim(self, launch: Launch, container: str, nonce: str) -> Handle:
        inside = launch.folder / "inside"
        inside.mkdir(mode=0o700, exist_ok=True)
        request = {
            "version": VERSION,
            "command": launch.command,
            "cwd": f"{places.CODE}/{launch.subdir}".rstrip("/"),
            "env": dict(launch.env),
            "isolation": "container",
            "gpus": {"indices": list(range(len(launch.gpus))), "cure": _GPU_CURE} if launch.gpus else None,
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

    def _begin(self, launch: Launch, nonce: str, container: str) -> None:
        """Make and start the container: on any core, where the engine may not use those of the run itself."""
        try:
            with self._engine.translated_errors():
                self._engine.api.create_container_from_config(self._container(launch, nonce), container)
                self._engine.api.start(container)
        except EngineError as error:
            if not launch.cores or not _REFUSES_CORES.search(error.message):
                raise
            _log.warning("run %d is not held to its cores: %s", launch.number, error.message)
            self._engine.remove(container)
            self._begin(replace(launch, cores=()), nonce, container)

    def _container(self, launch: Launch, nonce: str) -> dict[str, Any]:
        """Return the request to the engine. Everything that comes from a spec is checked, or is only a name."""
        api, machine = self._engine.api, launch.machine
        memory = machine.memory_bytes
        host: dict[str, Any] = {
            "cpuset_cpus": ",".join(map(str, launch.cores if self.holds_cores else ())) or None,
            **self._engine.confinement(machine.pids, self._config.options),
            "mounts": [*self._config.options.get("mounts", ()), *mounts(launch, self._certificates)],
            "network_mode": launch.network or self._config.network,
            "nano_cpus": int(machine.cpus * 1e9),
            "shm_size": machine.shm_bytes or (memory or _machine_memory()) // 2,
            "log_config": _LOG_CONFIG,
            "init": False,  # our reaper is the init: below another init, a command could kill it
        }
        if host["network_mode"] == "none":  # then the engine gives its name no address, and torchrun waits for one
            host["extra_hosts"] = {**_extra_hosts(host), _host_name(launch): "127.0.0.1"}
        if memory:
            host |= {"mem_limit": memory, "memswap_limit": memory}
        env = ["NVIDIA_VISIBLE_DEVICES=void"]
        if launch.gpus:
            env = []
            ids = [str(index) for index in launch.gpus]
            wanted = ["gpu", *capabilities(launch.env.get(CAPABILITIES, ""))]
            host["device_requests"] = [{"Driver": "", "Count": 0, "DeviceIDs": ids, "Capabilities": [wanted]}]
        try:
            host_config = api.create_host_config(**host)
        except checks.refusals() as error:
            raise ExecutorFailed(f"[docker.options] of the configuration: {error}", "See: spell doctor") from error
        return dict(
            api.create_container_config(
                launch.base.image,
                command=["-I", "-S", "-B", "-c", _BOOT, places.INSIDE, files.request_name(nonce)],
                entrypoint=[launch.base.python],
                hostname=_host_name(launch),
                user=self._engine.user,
                working_dir="/",
                environment=env,
                labels=self._engine.labels(role="run", run=launch.number, attempt=launch.attempt),
                healthcheck={"test": ["NONE"]},
                host_config=host_config,
            )
        )

    def _handle(self, folder: Path) -> Handle:
        owner = json.loads((folder / "claim.json").read_bytes())
        return Handle(self.name, int(owner.pop("version")), folder, owner)


def _with_cure(error: ExecutorFailed | BuildCancelled) -> ExecutorFailed | BuildCancelled:
    """Return the error, with a cure where we know one."""
    if isinstance(error, ExecutorFailed) and "could not select device driver" in error.message:
        return ExecutorFailed(f"the engine cannot give GPUs to containers ({error.message}); see: spell doctor")
    return error


def _host_name(launch: Launch) -> str:
    return f"run-{launch.number}"


def _extra_hosts(host: Mapping[str, Any]) -> dict[str, str]:
    """Return the configured addresses of further hosts, which the SDK takes as a dict or as `NAME:ADDRESS`."""
    given = host.get("extra_hosts") or {}
    return dict(given) if isinstance(given, Mapping) else dict(item.split(":", 1) for item in given)


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
