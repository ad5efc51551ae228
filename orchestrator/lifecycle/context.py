"""What the life of every run needs: store, home and tools, and how they become the launch of one attempt."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from orchestrator.config import Config
from orchestrator.content.manifest import Manifest
from orchestrator.data import caches
from orchestrator.data.blobs import BlobStore
from orchestrator.data.hashing import Hasher
from orchestrator.data.secrets import Secrets
from orchestrator.environments import (
    Base,
    Environment,
    EnvironmentRequest,
    Environments,
    Host,
    Projects,
    add_to_layer,
    extras_of,
    is_lock,
    make_layer,
    needs,
    own_pip,
    projects_of,
    site_folder,
    with_needs,
)
from orchestrator.errors import DiskFull, InvalidConfig, SnapshotMissing, StaleFence, StoreBusy
from orchestrator.executors.base import CacheBind, Executor, Launch
from orchestrator.executors.paths import GivenPaths, RunPaths
from orchestrator.home import Home
from orchestrator.lifecycle import checkpoints, mount_views, runtime_files, threads, trackers
from orchestrator.lifecycle import variables as runenv
from orchestrator.lifecycle.outcome import as_phase
from orchestrator.machine import whole_cores
from orchestrator.records.machines import MachineType
from orchestrator.spec.run import RunSpec
from orchestrator.store import ClaimedRun, Store

_log = logging.getLogger(__name__)
_RETRY_S = 2.0
_FULL_DISK_RETRY_S = 0.5
_MOST_KNOWN = 8
_NO_CODE = "Cast the run in the folder of your project, or name its code: --github-url URL"
_NEEDED_BYTES = 128 << 10  # some pages of SQLite, and the index of its log
LEADS: ContextVar[int] = ContextVar("LEADS", default=0)
"""The run that the current thread leads."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """Store, home, and tools.

    Attributes:
        server_env: the server's own environment variables.
        waits: for each run that waits for something of this machine, like disk space: what for.
        closing: set when the server ends.
        projects_known: the projects in the code of the last runs.
    """

    store: Store
    home: Home
    config: Config
    blobs: BlobStore
    environments: Environments
    secrets: Secrets
    executors: Mapping[str, Executor]
    hasher: Hasher
    server_env: Mapping[str, str]
    closing: threading.Event
    waits: dict[int, str] = field(default_factory=dict)
    projects_known: dict[tuple[object, ...], Projects] = field(default_factory=dict, repr=False)

    def firmly(self, write: Callable[[], T]) -> T:
        """Write to the store, however long the disk stays full or another program holds the file.

        Raises:
            StaleFence: when the server ends before.
        """
        number = LEADS.get()
        try:
            while True:
                try:
                    return write()
                except (DiskFull, StoreBusy) as error:
                    self.waits[number] = self._why(error)
                    _log.warning("run %d waits: %s", number, error)
                    if self.closing.wait(_FULL_DISK_RETRY_S):
                        raise StaleFence("the server ends") from None
        finally:
            self.waits.pop(number, None)

    def _why(self, error: DiskFull | StoreBusy) -> str:
        if isinstance(error, StoreBusy):
            return f"the chance to record its state: {error.message.removesuffix('.')}"
        words = "disk space, to record its state"
        try:
            free = shutil.disk_usage(self.home.store).free
        except OSError:  # the home is gone; whoever writes to it says so
            return words
        needed = f"{_NEEDED_BYTES >> 10} KiB are needed"
        return f"{words}: {free >> 10} KiB are free on the disk of {self.home.store}, {needed}"

    def with_room(self, save: Callable[[], T]) -> T:
        """Save with the room that is kept for a full disk: a new folder needs a block, and a run must not fail for that."""
        with self.store.way_out():
            return save()

    def patiently(self, number: int, what: str, ask: Callable[[], T], passes: Callable[[Exception], bool]) -> T:
        """Ask about a run, again and again until this machine can answer. The run goes on meanwhile.

        Args:
            number: the run.
            what: what cannot be done with the run before there is an answer, for the log: "stopped".
            passes: whether an error is temporary.

        Raises:
            StaleFence: when the server ends before.
        """
        try:
            while True:
                try:
                    return ask()
                except Exception as error:
                    if not passes(error):
                        raise
                    self.waits[number] = f"the chance to be {what}: {str(error).removesuffix('.')}"
                    _log.warning("run %d cannot be %s yet: %s", number, what, error)
                    if self.closing.wait(_RETRY_S):
                        raise StaleFence("the server ends") from error
        finally:
            self.waits.pop(number, None)

    def environments_of(
        self, spec: RunSpec, base: Base, log: Path, cancelled: Callable[[], bool], run: ClaimedRun | None = None
    ) -> tuple[Environment, Environment | None]:
        """Return the environment of a spec, and that of the projects in its code, if it has some; builds what does not exist.

        Raises as `Environments.ensure`.

        Args:
            run: the run that will use it, and is told of problems.
        """

        def tell(words: str) -> None:
            if run:
                self.firmly(lambda: self.store.notice(run.number, words))

        exposed = run is not None and not self.executors[run.executor].protects_environments
        ensure = functools.partial(
            self.environments.ensure, log=log, cancelled=cancelled, base=base, exposed=exposed, tell=tell
        )
        projects, request = self.projects(spec), self.request(spec)
        if projects is None:
            return ensure(request), None
        if not is_lock(request):
            built = ensure(projects)
            return ensure(self.request(spec, built)), built
        with ThreadPoolExecutor(1, f"projects-{run.number}" if run else "projects") as pool:
            building = pool.submit(contextvars.copy_context().run, ensure, projects)  # meanwhile
            return ensure(request), building.result()

    def projects(self, spec: RunSpec, manifest: Manifest | None = None) -> EnvironmentRequest | None:
        """Return the request for the projects in the code of a spec; None if it has none.

        Args:
            manifest: of its code, if that was not sent yet.

        Raises:
            InvalidConfig: its code has no project where the spec names one.
        """
        if not spec.editables:
            return None
        if spec.code is None:
            raise InvalidConfig("There is no code, so no project of it can be installed.", _NO_CODE)
        same = (spec.code.tree, spec.editables, tuple(spec.env.items()))
        found = self.projects_known.get(same)  # reading 10,000 files of a manifest takes 60 ms, and a run asks twice
        if found is None:
            if manifest is None or manifest.tree != spec.code.tree:
                manifest = self.blobs.tree(spec.code.tree)
            found = projects_of(manifest, spec.editables, spec.env, self.home.blob)
            if len(self.projects_known) >= _MOST_KNOWN:
                self.projects_known.clear()
            self.projects_known[same] = found
        return EnvironmentRequest(spec.python, projects=found)

    def request(self, spec: RunSpec, built: Environment | None = None) -> EnvironmentRequest:
        """Return the request for the environment of a spec.

        Args:
            built: the environment of its projects, which says what they need.
        """
        frameworks = self.config.default_frameworks if spec.frameworks is None else spec.frameworks
        lines = [line for name in frameworks for line in self.config.framework(name)]
        variables = runenv.passed(self.server_env, self.config.pass_env, is_host=True) | dict(spec.env)
        request = EnvironmentRequest(spec.python, (*lines, *spec.pip), spec.requirements, variables=variables)
        return with_needs(request, needs(built.path, extras_of(spec.editables))) if built else request

    def request_as_built(self, spec: RunSpec, base: Base | None) -> EnvironmentRequest:
        """Return the request for the environment of a spec, with what its projects need, if they were built before."""
        asked = None
        with contextlib.suppress(SnapshotMissing):  # who casts a run of it is told
            asked = self.projects(spec)
        return self.request(spec, self.environments.get(self.environments.key(asked, base)) if asked else None)

    def known_environment(
        self, spec: RunSpec, base: Base, manifest: Manifest | None = None
    ) -> tuple[str, Environment | None]:
        """Return the key of the environment of a spec, and the environment if it was built before; builds nothing.

        The key is "" where only a build of the projects in its code tells what they need.

        Args:
            base: what it is built on.
            manifest: as of `projects`.

        Raises:
            InvalidConfig: as `projects`.
            SnapshotMissing: its code was not sent.
        """
        asked = self.projects(spec, manifest)
        built = self.environments.get(self.environments.key(asked, base)) if asked else None
        if asked and built is None:
            return "", None
        key = self.environments.key(self.request(spec, built), base)
        return key, self.environments.get(key)

    def launch(
        self, run: ClaimedRun, spec: RunSpec, base: Base, environment: Environment, projects: Environment | None
    ) -> Launch:
        """Return all that the executor of a run needs to start it, and make its layer.

        Args:
            environment, projects: as `environments_of` returns them.

        Raises:
            SecretLost, MountFailed, DiskFull, BuildFailed: when something of it cannot be had.
        """
        home, number = self.home, run.number
        code = home.work_dir(number) / "code"
        subdir = spec.code.subdir if spec.code else ""
        bytecode = self.environments.bytecode_until_compiled(environment)
        executor = self.executors[run.executor]
        places = executor.run_paths(base, self._given(number, environment.path, bytecode))
        shared = self._caches(spec)
        last = runtime_files.last_folders(places, environment.python)
        try:
            if not executor.protects_environments:
                runtime_files.copy_pip(home)
            make_layer(home.layer(number), environment.path, places.environment, last)
            if projects:
                add_to_layer(home.layer(number), projects.path, places.code)
        except OSError as error:
            raise as_phase(error) from error
        return Launch(
            number=number,
            attempt=run.attempt,
            command=spec.filled_command,
            code=code,
            subdir=subdir,
            env=self._env(run, spec, places, environment.path, shared),
            binds=tuple(mount_views.binds(home, self.store, number, spec)),
            base=base,
            environment=environment.path,
            layer=home.layer(number),
            runtime=home.runtime,
            metrics=home.metrics(number),
            bytecode=bytecode,
            scratch=home.work_dir(number) / "scratch",
            log=home.log(number),
            folder=home.attempt_dir(number, run.attempt),
            home=home.root,
            protected=self._protected(),
            machine=self._machine(run, spec),
            gpus=run.gpus,
            cores=run.cores,
            network=spec.network,
            timeout_s=spec.timeout_s,
            grace_s=self.config.grace_s,
            secrets=self.secrets.open(spec.secrets),
            log_bytes=self.config.limits.log_bytes,
            caches=tuple(
                CacheBind(folder.source, _seen_at(places, folder), shared.is_read_only) for folder in shared.folders
            ),
        )

    def code_as_seen(self, run: ClaimedRun) -> str:
        """Return the root of the code, as the command of a run sees it. Asks no engine: a save must not wait for one."""
        given = self._given(run.number, self.home.environments)
        return self.executors[run.executor].run_paths(Base(Host()), given).code

    def surroundings(self, run: ClaimedRun, spec: RunSpec) -> tuple[dict[str, str], str]:
        """Return the variables that the command of a started run sees, and the folder it was started in, as it sees them."""
        home, executor = self.home, self.executors[run.executor]
        record = self.store.record(run.number)
        environment = home.environment(record.environment or "")
        places = executor.run_paths(executor.base_of(record.image or ""), self._given(run.number, environment))
        subdir = spec.code.subdir if spec.code else ""
        env = self._env(run, spec, places, environment, self._caches(spec)) | self.secrets.open_what_is_there(
            spec.secrets
        )
        return env, f"{places.code}/{subdir}".rstrip("/")

    def _given(self, number: int, environment: Path, bytecode: Path | None = None) -> GivenPaths:
        home = self.home
        return GivenPaths(
            code=home.work_dir(number) / "code",
            environment=environment,
            layer=home.layer(number),
            runtime=home.runtime,
            metrics=home.metrics(number),
            bytecode=bytecode,
        )

    def _protected(self) -> tuple[Path, ...]:
        """Return what of the home, and of spell's own files on the path of a run, no run may change."""
        home = self.home
        found = [home.runs, home.uploads, home.store, home.config, own_pip()]
        return tuple(path for path in found if path and path.exists())

    def _caches(self, spec: RunSpec) -> caches.Caches:
        try:
            return caches.of_run(self.home, self.config.caches, spec.caches)
        except OSError as error:
            raise as_phase(error) from error

    def _env(
        self, run: ClaimedRun, spec: RunSpec, places: RunPaths, environment: Path, shared: caches.Caches
    ) -> dict[str, str]:
        inherited = runenv.passed(self.server_env, self.config.pass_env, is_host=places.is_host)
        site = site_folder(environment).relative_to(environment)  # not of the layer, which the run may have removed
        how_many = threads.variables(
            len(run.cores) or whole_cores(run.cpus),
            {*places.variables, *inherited, *spec.env},
            is_held=bool(run.cores) and self.executors[run.executor].holds_cores,
        )
        env = runenv.compose(
            self.home,
            run.number,
            places,
            attempt=run.attempt,
            gpus=run.gpus,
            asked=spec.env,
            inherited=inherited,
            bare=self.request(spec).bare and not spec.editables,
            site=f"{places.layer}/{site}",
            checkpoints=checkpoints.folder_of(spec),
        )
        seen_at = {folder.name: _seen_at(places, folder) for folder in shared.folders}
        taken = {*places.variables, *env, *spec.secrets}
        of_caches = caches.variables_of(shared, seen_at, env.get("HOME", ""), taken)
        subdir = spec.code.subdir if spec.code else ""
        of_trackers = trackers.variables(
            f"{places.code}/{subdir}".rstrip("/"),
            {*places.variables, *inherited, *spec.env, *spec.secrets},
            self.server_env,
            is_host=places.is_host,
        )
        return how_many | of_caches | of_trackers | env

    def _machine(self, run: ClaimedRun, spec: RunSpec) -> MachineType:
        """Return the machine type as it was when the run was cast; the configuration may have changed since."""
        known = self.config.types().get(spec.machine_type) or MachineType(spec.machine_type, run.cpus)
        return dataclasses.replace(known, cpus=run.cpus, memory_bytes=run.memory_bytes or None)


def _seen_at(places: RunPaths, folder: caches.CacheFolder) -> str:
    """Return where a run sees a folder for caches."""
    return "-".join(filter(None, (places.caches, folder.name))) if places.caches else str(folder.source)
