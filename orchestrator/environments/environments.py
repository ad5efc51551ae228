"""All environments of one home: looked up by key, built when missing, compiled in the background."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orchestrator.environments.builder import BUILDING, REMOVED, Plan, build, discard, key_of_leftover
from orchestrator.environments.bytecode import BYTECODE, MARKER, Compiler
from orchestrator.environments.key import ContentHashes, environment_key
from orchestrator.environments.lock import Failure, KeyLock, hold, hold_if_free
from orchestrator.environments.published import (
    Environment,
    boot_id,
    open_environment,
    published_folders,
    read_description,
)
from orchestrator.environments.request import Asked, EnvironmentRequest, read
from orchestrator.environments.settings import UvSettings, uv_settings
from orchestrator.environments.uv import BuildLog, disk_full, is_disk_full
from orchestrator.errors import BuildFailed
from orchestrator.home import Home


class Environments:
    """The environments of a home. Safe to use from many threads and processes at once.

    Args:
        home: where they are.
        settings: the user's environment variables, from which the settings of pip and uv are taken; by default those
            of this process. Relative paths in them start from the working directory of now.
    """

    def __init__(self, home: Home, settings: Mapping[str, str] | None = None) -> None:
        self._home = home
        self._variables = dict(os.environ if settings is None else settings)
        self._folder = Path.cwd()
        self._hashes = ContentHashes()
        self._compiler = Compiler(self._uncompiled)

    def key(self, request: EnvironmentRequest) -> str:
        """The key of what is asked.

        Raises:
            InvalidConfig: when it cannot be built as it is written.
        """
        asked = read(request)
        return environment_key(asked, self._settings(asked).content, self._hashes)

    def get(self, key: str) -> Environment | None:
        """The published environment of a key if it is there and whole; costs a few stats."""
        return open_environment(key, self._home.environment(key))

    def ensure(self, request: EnvironmentRequest, log: Path, cancelled: Callable[[], bool]) -> Environment:
        """The environment that is asked: at once if it is there, else built, or waited for while another builds it.

        Args:
            request: what is asked.
            log: the build log; what uv says is appended line by line while it says so.
            cancelled: asked many times a second; when it says yes, the build is ended.
        Raises:
            InvalidConfig: the request is wrong in itself.
            BuildFailed: it cannot be built; the log tells why. Nothing of it is kept.
            DiskFull: there is no room.
            BuildCancelled: as asked.
        """
        asked = read(request)
        settings = self._settings(asked)
        key = environment_key(asked, settings.content, self._hashes)
        return self.get(key) or self._build(key, asked, settings, log, cancelled)

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
        self._remove_leftovers()
        self._remove_bytecode()
        self._remove_unsafe()
        self._compiler.start()

    def close(self) -> None:
        """Stop compiling; the rest is done after the next start."""
        self._compiler.close()

    def compile_pending(self) -> None:
        """Compile all environments that have no byte code yet, here and now."""
        self._compiler.compile_pending()

    def _settings(self, asked: Asked) -> UvSettings:
        return uv_settings(self._variables, self._folder, asked.options)

    def _build(
        self, key: str, asked: Asked, settings: UvSettings, log_path: Path, cancelled: Callable[[], bool]
    ) -> Environment:
        with _disk_full_told(), _opened(log_path) as log:
            environments = self._home.environments
            environments.mkdir(parents=True, exist_ok=True)
            with hold(environments, key, lambda: log.say("Another run is building this; waiting"), cancelled) as lock:
                found = self.get(key)
                if found is not None:
                    return found
                _take_failure(lock, log)
                self._clear(key)
                try:
                    build(Plan(environments, key, asked, settings, log, cancelled))
                except BuildFailed as error:
                    log.say(f"The environment could not be built: {error.message}")
                    lock.fail(Failure(error.message, error.cure, tuple(log.lines)))
                    raise
                published = self.get(key)
        if published is None:
            raise BuildFailed("The environment was removed as soon as it was built.", "Cast the run again.")
        self._compiler.wake()
        return published

    def _clear(self, key: str) -> None:
        """Remove what is in the way of a build: the remains of an earlier one, and an environment that is not whole."""
        environments = self._home.environments
        for leftover in environments.glob(f"{BUILDING}{key}-*"):
            discard(leftover)
        self._remove(environments / key)

    def _remove(self, path: Path) -> None:
        if path.exists():
            aside = Path(tempfile.mkdtemp(prefix=f"{REMOVED}{path.name}-", dir=path.parent))
            os.rename(path, aside / path.name)
            shutil.rmtree(aside, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for path in sorted(self._home.environments.glob(".*")):
            key = key_of_leftover(path.name) or path.name.partition(".lock-")[2]
            if key:
                with hold_if_free(self._home.environments, key) as held:
                    if held:
                        discard(path)

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
                        self._remove(path)

    def _uncompiled(self) -> list[Path]:
        folders = published_folders(self._home.environments)
        return [path for path in folders if not (path / MARKER).exists() and read_description(path)]


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
