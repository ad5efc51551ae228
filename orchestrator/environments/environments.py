"""All environments of one home: looked up by key, built when missing, compiled in the background."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.engine import Engine
from orchestrator.environments.base import Base
from orchestrator.environments.builder import Plan, build
from orchestrator.environments.bytecode import BYTECODE, MARKER, Compiler
from orchestrator.environments.containers import Container, remove_abandoned
from orchestrator.environments.host import Here
from orchestrator.environments.key import ContentHashes, environment_key
from orchestrator.environments.lock import Failure, KeyLock, hold, hold_if_free
from orchestrator.environments.orphans import (
    BUILDING,
    CONTAINERS,
    discard,
    key_of_leftover,
    names_container,
    remove_environment,
    workshops,
)
from orchestrator.environments.published import (
    Environment,
    boot_id,
    open_environment,
    published_folders,
    read_description,
)
from orchestrator.environments.request import Asked, EnvironmentRequest, read
from orchestrator.environments.settings import UvSettings, uv_settings
from orchestrator.environments.unused import Limit, collect, mark_used
from orchestrator.environments.uv import BuildLog, disk_full
from orchestrator.errors import BuildFailed, SpellError, is_disk_full
from orchestrator.home import Home
from orchestrator.records.gc import CollectedRecord

_HERE = Base(Here())
_LOW_SHARES = 2  # of a container that compiles, where a run's has 1024


class Environments:
    """The environments of a home. Safe to use from many threads and processes at once.

    Args:
        home: where they are.
        settings: the user's environment variables, from which the settings of pip and uv are taken; by default those
            of this process. Relative paths in them start from the working directory of now.
        engine: where environments of images are compiled, and what dead servers left there is ended.
        built: called when there is a new environment.
    """

    def __init__(
        self,
        home: Home,
        settings: Mapping[str, str] | None = None,
        engine: Engine | None = None,
        built: Callable[[], None] = lambda: None,
    ) -> None:
        self._home, self._built = home, built
        self._engine = engine
        self._variables = dict(os.environ if settings is None else settings)
        self._folder = Path.cwd()
        self._hashes = ContentHashes()
        self._compiler = Compiler(self._uncompiled, self._container)

    def key(self, request: EnvironmentRequest, base: Base | None = None) -> str:
        """The key of what is asked.

        Raises:
            InvalidConfig: when it cannot be built as it is written.
        """
        asked = read(request)
        return environment_key(asked, self._settings(asked).content, self._hashes, base)

    def get(self, key: str) -> Environment | None:
        """The published environment of a key if it is there and whole; costs a few stats."""
        return open_environment(key, self._home.environment(key))

    def ensure(
        self, request: EnvironmentRequest, log: Path, cancelled: Callable[[], bool], base: Base | None = None
    ) -> Environment:
        """The environment that is asked: at once if it is there, else built, or waited for while another builds it.

        Args:
            request: what is asked.
            log: the build log; what uv says is appended line by line while it says so.
            cancelled: asked many times a second; when it says yes, the build is ended.
            base: what it stands on; None for this machine.
        Raises:
            InvalidConfig: the request is wrong in itself.
            BuildFailed: it cannot be built; the log tells why. Nothing of it is kept.
            DiskFull: there is no room.
            BuildCancelled: as asked.
        """
        asked = read(request)
        settings = self._settings(asked)
        base = base or _HERE
        key = environment_key(asked, settings.content, self._hashes, base)
        with suppress(OSError):  # not there; or another person's, who collects it too
            mark_used(self._home.environment(key))  # before it is looked for: who collects looks the other way round
        return self.get(key) or self._build(Plan(self._home.environments, key, asked, base, settings, cancelled), log)

    def bytecode_until_compiled(self, environment: Environment) -> Path | None:
        """A folder beside an environment that is not compiled yet, where its runs keep and share byte code.

        The environment itself is never written to. None once it is compiled; the folder goes at the next start.
        """
        if environment.compiled:
            return None
        folder = environment.path.with_name(BYTECODE + environment.key)
        folder.mkdir(exist_ok=True)
        return folder

    def start(self) -> None:
        """Clear up after a server that was killed, and compile in the background from now on."""
        self._home.environments.mkdir(parents=True, exist_ok=True)
        found = _hidden(self._home.environments)
        of_containers = [path for path in found if names_container(path)]
        self._remove_leftovers([path for path in found if path not in of_containers])
        self._remove_bytecode()
        self._remove_unsafe()
        left = of_containers + _hidden(self._home.environments / CONTAINERS)
        threading.Thread(target=self._clear_containers, args=(left,), name="clear-containers", daemon=True).start()
        self._compiler.start()

    def close(self) -> None:
        """Stop compiling; the rest is done after the next start."""
        self._compiler.close()

    def compile_pending(self) -> None:
        """Compile all environments that have no byte code yet, here and now."""
        self._compiler.compile_pending()

    def collect(
        self, keep: set[str], older_than_s: float, *, dry_run: bool, limit: Limit | None = None
    ) -> list[CollectedRecord]:
        """Remove the environments that have not been used for so long, but for those whose keys are to be kept.

        Args:
            keep: the keys of environments that runs use.
            older_than_s: seconds since the last use, until now: what is used while this works stays.
            dry_run: only tell.
            limit: see `unused.collect`.
        """
        return collect(self._home.environments, keep, older_than_s, dry_run=dry_run, limit=limit)

    @property
    def find_links(self) -> tuple[Path, ...]:
        """The local folders in which the person's settings look for wheels."""
        return uv_settings(self._variables, self._folder, {}).find_links

    def _settings(self, asked: Asked) -> UvSettings:
        return uv_settings(self._variables, self._folder, asked.options, asked.variables, asked.named_variables)

    def _build(self, plan: Plan, log_path: Path) -> Environment:
        with _disk_full_told(), _opened(log_path) as log:
            environments, key = self._home.environments, plan.key
            environments.mkdir(parents=True, exist_ok=True)
            waiting = "Another run is building this; waiting"
            with hold(environments, key, lambda: log.say(waiting), plan.cancelled) as lock:
                found = self.get(key)
                if found is not None:
                    return found
                _take_failure(lock, log)
                self._clear(key)
                try:
                    build(plan, log)
                except BuildFailed as error:
                    log.say(f"The environment could not be built: {error.message}")
                    lock.fail(Failure(error.message, error.cure, tuple(log.lines)))
                    raise
                published = self.get(key)
        if published is None:
            raise BuildFailed("The environment was removed as soon as it was built.", "Cast the run again.")
        self._compiler.wake()
        self._built()
        return published

    def _clear(self, key: str) -> None:
        """Remove what is in the way of a build: the remains of an earlier one, and an environment that is not whole."""
        for workshop in workshops(self._home.environments):
            for leftover in workshop.glob(f"{BUILDING}{key}-*"):
                discard(leftover, self._engine)
        remove_environment(self._home.environment(key))

    def _remove_leftovers(self, paths: list[Path]) -> None:
        for path in paths:
            key = key_of_leftover(path.name) or path.name.partition(".lock-")[2]
            if key:
                with hold_if_free(self._home.environments, key) as held:
                    if held:
                        discard(path, self._engine)

    def _clear_containers(self, left: list[Path]) -> None:
        """The same for builds in containers: asking the engine takes a while, and nobody waits for it."""
        if self._engine is not None and not self._engine.lacks():
            with suppress(SpellError):  # it went away: the next start does it
                remove_abandoned(self._engine)
        self._remove_leftovers(left)

    def _remove_bytecode(self) -> None:
        for path in self._home.environments.glob(f"{BYTECODE}*"):
            environment = self.get(path.name.removeprefix(BYTECODE))
            if environment is None or environment.compiled:
                shutil.rmtree(path, ignore_errors=True)

    def _remove_unsafe(self) -> None:
        """Remove environments that were built just before the machine went down: not all of it may be on the disk."""
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
        """Where an environment is compiled: the image that it is for; None for this machine.

        Raises:
            BuildFailed: when there is no engine.
        """
        content = read_description(environment) or {}
        if not content.get("image"):
            return None
        if self._engine is None or self._engine.lacks():
            raise BuildFailed("There is no engine that could run the container.")
        return Container(self._engine, content["image"], content["python_path"], cpu_shares=_LOW_SHARES)


def _hidden(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*"))


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
def _disk_full_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise disk_full() from error
        raise BuildFailed(f"The environment could not be built: {error.strerror or error}.") from error
