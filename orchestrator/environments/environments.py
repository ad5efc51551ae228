"""All environments of one home: looked up by key, built when missing, compiled in the background."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.engine import Engine
from orchestrator.environments.base import Base
from orchestrator.environments.builder import CacheDamaged, Plan, build
from orchestrator.environments.bytecode import BYTECODE, MARKER, Compiler
from orchestrator.environments.containers import Container, remove_abandoned
from orchestrator.environments.gc import Limit, gc, mark_used
from orchestrator.environments.host import Host
from orchestrator.environments.integrity import NOTE, Damage, damage_of, expose, is_exposed, note_files
from orchestrator.environments.key import ContentHashes, environment_key
from orchestrator.environments.lock import Failure, KeyLock, hold, hold_if_free
from orchestrator.environments.orphans import (
    BUILDING,
    CONTAINERS,
    build_folders,
    discard,
    key_of_orphan,
    names_container,
    remove_environment,
)
from orchestrator.environments.published import (
    Environment,
    boot_id,
    open_environment,
    published_folders,
    read_description,
)
from orchestrator.environments.request import EnvironmentRequest, ParsedRequest, pins, read
from orchestrator.environments.settings import UvSettings, uv_settings
from orchestrator.environments.torch_backend import backend_of, chosen
from orchestrator.environments.uv import BuildLog, Interrupted, disk_full
from orchestrator.errors import BuildFailed, SpellError, is_disk_full
from orchestrator.home import Home
from orchestrator.records.gc import RemovedRecord

_HOST = Base(Host())
_LOW_SHARES = 2  # of a container that compiles; that of a run has 1024


class Environments:
    """The environments of a home. Safe to use from many threads and processes at once.

    Args:
        home: the home.
        settings: the user's environment variables, which hold settings of pip and uv; by default those of this process.
            Relative paths in them start from the current working directory.
        engine: compiles environments of images; containers that dead servers left there are removed.
        built: called when a new environment was built.
        torch_backend: see `torch_backend.chosen`.
    """

    def __init__(
        self,
        home: Home,
        settings: Mapping[str, str] | None = None,
        engine: Engine | None = None,
        built: Callable[[], None] = lambda: None,
        torch_backend: str = "none",
    ) -> None:
        self._home, self._built = home, built
        self._torch_backend = torch_backend
        self._engine = engine
        self._variables = dict(os.environ if settings is None else settings)
        self._folder = Path.cwd()
        self._hashes = ContentHashes()
        self._compiler = Compiler(self._uncompiled, self._container)

    def key(self, request: EnvironmentRequest, base: Base | None = None) -> str:
        """Return the key of a request.

        Raises:
            InvalidConfig: when the request cannot be built as it is written.
        """
        asked = read(request)
        return environment_key(asked, self._settings(asked).content, self._hashes, base)

    def check(self, request: EnvironmentRequest) -> None:
        """Refuse a request that no build can take, as far as this can be seen without building.

        Raises:
            InvalidConfig: the message names the file and the line.
        """
        self._settings(read(request))

    def get(self, key: str) -> Environment | None:
        """Return the published environment of a key if it exists and is complete; costs a few stats."""
        return open_environment(key, self._home.environment(key))

    def ensure(
        self,
        request: EnvironmentRequest,
        log: Path,
        cancelled: Callable[[], bool],
        base: Base | None = None,
        *,
        exposed: bool = False,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Environment:
        """Return the requested environment. Builds it if it does not exist, or waits for another builder.

        Args:
            request: the request.
            log: the build log; uv's output is appended line by line as it comes.
            cancelled: called many times a second; True ends the build.
            base: what it is built on; None for this machine.
            exposed: whether the run will be able to change it; see `integrity`.
            tell: called with a sentence for the person.

        Raises:
            InvalidConfig: the request is invalid.
            BuildFailed: the build failed; the log says why. Nothing of it is kept.
            DiskFull: the disk is full.
            BuildCancelled: when cancelled.
        """
        asked = read(request)
        settings = self._settings(asked)
        base = base or _HOST
        key = environment_key(asked, settings.content, self._hashes, base)
        with suppress(OSError):  # it does not exist, or belongs to another user, who also collects it
            mark_used(self._home.environment(key))  # before the lookup: `gc` goes in the reverse order
        if exposed:
            self._home.environments.mkdir(parents=True, exist_ok=True)
            with _translated_errors():
                expose(self._home.environments)
        found, damage = self._look(key)
        if found and not damage:
            return found
        if damage:
            tell(f"Its environment was changed by an earlier run ({damage}), and is built again")
        distrusted = damage.packages if damage else frozenset()
        return self._build(Plan(self._home.environments, key, asked, base, settings, cancelled, distrusted), log)

    def _look(self, key: str) -> tuple[Environment | None, Damage | None]:
        """Return a published environment, and what runs have changed in it."""
        found = self.get(key)
        if found is None or not is_exposed(self._home.environments):
            return found, None
        return found, damage_of(found.path)

    def bytecode_until_compiled(self, environment: Environment) -> Path | None:
        """Return a folder beside an environment that is not compiled yet, where its runs keep and share byte code.

        Runs never write to the environment. Returns None once it is compiled; the next start removes the folder.
        """
        if environment.compiled:
            return None
        folder = environment.path.with_name(BYTECODE + environment.key)
        folder.mkdir(exist_ok=True)
        return folder

    def start(self) -> None:
        """Clean up after a server that was killed, and start to compile in the background."""
        self._home.environments.mkdir(parents=True, exist_ok=True)
        found = _hidden(self._home.environments)
        of_containers = [path for path in found if names_container(path)]
        self._remove_orphans([path for path in found if path not in of_containers])
        self._remove_bytecode()
        self._remove_unsafe()
        left = of_containers + _hidden(self._home.environments / CONTAINERS)
        threading.Thread(target=self._clear_containers, args=(left,), name="clear-containers", daemon=True).start()
        self._compiler.start()

    def close(self) -> None:
        """Stop compiling; the next start goes on with the rest."""
        self._compiler.close()

    def compile_pending(self) -> None:
        """Compile all environments that have no byte code yet, and return when it is done."""
        self._compiler.compile_pending()

    def gc(
        self, keep: set[str], older_than_s: float, *, dry_run: bool, limit: Limit | None = None
    ) -> list[RemovedRecord]:
        """Remove the environments that were not used for this time, except those to keep.

        Args:
            keep: the keys of environments that runs use.
            older_than_s: seconds since the last use, counted from now: an environment used while this works stays.
            dry_run: remove nothing.
            limit: see `gc.gc`.
        """
        return gc(self._home.environments, keep, older_than_s, dry_run=dry_run, limit=limit)

    @property
    def find_links(self) -> tuple[Path, ...]:
        """The local folders in which the user's settings look for wheels."""
        return uv_settings(self._variables, self._folder, {}).find_links

    def _settings(self, asked: ParsedRequest) -> UvSettings:
        return uv_settings(
            self._variables,
            self._folder,
            asked.options,
            asked.variables,
            asked.named_variables,
            pins(asked.files),
            backend_of(asked, chosen(self._torch_backend)),
        )

    def _build(self, plan: Plan, log_path: Path) -> Environment:
        with _translated_errors(), _opened(log_path) as log:
            environments, key = self._home.environments, plan.key
            environments.mkdir(parents=True, exist_ok=True)
            waiting = "Another run is building this environment; waiting"
            with hold(environments, key, lambda: log.say(waiting), plan.cancelled) as lock:
                found, damage = self._look(key)
                if found and not damage:
                    return found
                _take_failure(lock, log)
                self._clear(key)
                try:
                    _build_firmly(plan, log)
                except BuildFailed as error:
                    log.say(f"The environment could not be built: {error.message}")
                    lock.fail(Failure(error.message, error.cure, tuple(log.lines)))
                    raise
                published = self.get(key)
                if published and is_exposed(environments):
                    note_files(published.path)
        if published is None:
            raise BuildFailed("The environment was removed right after it was built.", "Cast the run again.")
        self._compiler.wake()
        self._built()
        return published

    def _clear(self, key: str) -> None:
        """Remove the remains of an earlier build. What lies in the place of the environment is replaced at the end."""
        for folder in build_folders(self._home.environments):
            for orphan in folder.glob(f"{BUILDING}{key}-*"):
                discard(orphan, self._engine)
        self._home.environments.joinpath(NOTE + key).unlink(missing_ok=True)

    def _remove_orphans(self, paths: list[Path]) -> None:
        for path in paths:
            key = key_of_orphan(path.name) or path.name.partition(".lock-")[2]
            if key:
                with hold_if_free(self._home.environments, key) as held:
                    if held:
                        discard(path, self._engine)

    def _clear_containers(self, left: list[Path]) -> None:
        """Remove builds in containers, in the background, because asking the engine takes a while."""
        if self._engine is not None and not self._engine.lacks():
            with suppress(SpellError):  # the engine is gone: the next start does it
                remove_abandoned(self._engine)
        self._remove_orphans(left)

    def _remove_bytecode(self) -> None:
        for path in self._home.environments.glob(f"{BYTECODE}*"):
            environment = self.get(path.name.removeprefix(BYTECODE))
            if environment is None or environment.compiled:
                shutil.rmtree(path, ignore_errors=True)

    def _remove_unsafe(self) -> None:
        """Remove environments that were built just before the machine went down: they may be incomplete on the disk."""
        boot = boot_id()
        for path in published_folders(self._home.environments):
            content = read_description(path)
            if content and content["boot"] != boot and not (path / MARKER).exists():
                with hold_if_free(self._home.environments, path.name) as held:
                    if held:
                        remove_environment(path)

    def _uncompiled(self) -> list[Path]:
        folders = published_folders(self._home.environments)
        return [path for path in folders if not (path / MARKER).exists() and read_description(path)]

    def _container(self, environment: Path) -> Container | None:
        """Return the container in which an environment is compiled; None for this machine.

        Raises:
            BuildFailed: when no engine is available.
        """
        content = read_description(environment) or {}
        if not content.get("image"):
            return None
        if self._engine is None or self._engine.lacks():
            raise BuildFailed("No Docker engine is available to run the container.")
        return Container(self._engine, content["image"], content["python_path"], cpu_shares=_LOW_SHARES)


def _hidden(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*"))


def _build_firmly(plan: Plan, log: BuildLog) -> None:
    """Build, and build once more if a program was killed from outside, or if something in uv's cache was changed.

    What differs from its RECORD in both builds differs in the package itself.
    """
    try:
        build(plan, log)
    except Interrupted as error:
        log.say(f"{error.message} Trying once more")
    except CacheDamaged as error:
        log.say(f"{error.message} Fetching these packages again")
        plan = dataclasses.replace(plan, distrusted=plan.distrusted | error.damage.packages, fetched_anew=error.damage)
    else:
        return
    build(plan, log)


def _take_failure(lock: KeyLock, log: BuildLog) -> None:
    if lock.failure is not None:
        for line in lock.failure.log:
            log.say(line)
        raise BuildFailed(lock.failure.message, lock.failure.cure)


@contextmanager
def _opened(path: Path) -> Iterator[BuildLog]:
    log = BuildLog(path)
    try:
        yield log
    finally:
        log.close()


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise disk_full() from error
        raise BuildFailed(f"The environment could not be built: {error.strerror or error}.") from error
