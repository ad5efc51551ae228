"""One build of one environment, in a folder beside its final one, which is then renamed.

.building-KEY-XXXX/
  cwd/        where uv runs; an empty project in it hides projects around the home
    asked/    the requirement lines and files
  local/N/    copies of local projects, which are built in them
  local/code/ a copy of those in the code of the run
  home/       HOME of a build in a container
  uv.json     the uv process or the container that is running now
  venv/       becomes the environment

A container makes `venv` in a second folder of that name, in `CONTAINERS`. All containers that build can write to it, and
their programs may be hostile: so we write nothing there while the container is open, and read `venv` only after it has
been moved out of their reach.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.environments import editables, image_packages, uv_cache
from orchestrator.environments.base import Base, Runner
from orchestrator.environments.bytecode import adopt
from orchestrator.environments.container_settings import UV, container_settings
from orchestrator.environments.containers import Container, Mount
from orchestrator.environments.find_links import FindLinks
from orchestrator.environments.installed import Distribution, distributions, python_of, read_inside
from orchestrator.environments.integrity import Damage, against_record, is_exposed
from orchestrator.environments.key import NOT_CONTENT, is_own_python
from orchestrator.environments.orphans import (
    BUILDING,
    CONTAINERS,
    PROCESS_FILE,
    discard,
    remove,
    replace_environment,
)
from orchestrator.environments.published import describe, open_environment, published_folders, sync_folder
from orchestrator.environments.request import Line, Local, ParsedFile, ParsedRequest, Reference
from orchestrator.environments.settings import UvSettings, link_mode
from orchestrator.environments.uv import BuildLog, IndexAway, Uv, uv_executable
from orchestrator.errors import BuildFailed

_LINES_FILE = "pip.txt"


class CacheDamaged(BuildFailed):
    """Files in uv's cache were changed."""

    def __init__(self, damage: Damage) -> None:
        super().__init__(f"Files in uv's cache were changed: {damage}.", "Cast the run again.")
        self.damage = damage


@dataclass(frozen=True, slots=True)
class Plan:
    """The inputs of one build.

    Attributes:
        environments: the folder of all environments.
        key: the key of the new one.
        asked: the request.
        base: what it is built on.
        settings: the user's settings for uv.
        cancelled: called many times a second.
        distrusted: packages that must not come from uv's cache, because a run may have changed them there.
        fetched_anew: what differed from its package's RECORD before the distrusted packages were fetched anew.
    """

    environments: Path
    key: str
    asked: ParsedRequest
    base: Base
    settings: UvSettings
    cancelled: Callable[[], bool] = field(repr=False)
    distrusted: frozenset[str] = frozenset()
    fetched_anew: Damage | None = None

    @property
    def build_folder(self) -> Path:
        """The folder in which the folder of the build is made."""
        return self.environments / CONTAINERS if self.base.image else self.environments


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """Where uv runs, its path there, and its variables."""

    runner: Runner
    uv: str
    env: Mapping[str, str] = field(repr=False)


def build(plan: Plan, log: BuildLog) -> None:
    """Build an environment and publish it, in place of a damaged one; the caller holds the lock of its key.

    Raises:
        BuildFailed, DiskFull, BuildCancelled: nothing of the build is left then.
        CacheDamaged: likewise, and what to distrust.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{BUILDING}{plan.key}-", dir=plan.environments))
    try:
        with _output(plan, folder) as output:
            built = _Build(plan, folder, output, log)
            with _surroundings(plan, folder, log) as surroundings:
                built.make(surroundings)
            _take(output, folder)
        built.publish()
    finally:
        discard(folder)


@contextmanager
def _output(plan: Plan, folder: Path) -> Iterator[Path]:
    """Make the folder for `venv`, and remove it afterwards. Meanwhile nothing is removed from uv's cache."""
    with uv_cache.used(plan.environments, plan.cancelled):
        if not plan.base.image:
            yield folder
            return
        plan.build_folder.mkdir(exist_ok=True)
        output = Path(tempfile.mkdtemp(prefix=f"{BUILDING}{plan.key}-", dir=plan.build_folder))
        try:
            yield output
        finally:
            remove(output)


def _take(output: Path, folder: Path) -> None:
    """Move `venv` to a folder that no container sees.

    Raises:
        BuildFailed: when it is not what uv makes.
    """
    try:
        descriptor = os.open(output, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if output != folder:
                os.rename("venv", folder / "venv", src_dir_fd=descriptor)
        finally:
            os.close(descriptor)
        if stat.S_ISDIR((folder / "venv").lstat().st_mode):
            return
    except (FileNotFoundError, NotADirectoryError):
        pass
    raise BuildFailed("The build did not produce a Python environment.", "Check the Python of the image.")


@contextmanager
def _surroundings(plan: Plan, folder: Path, log: BuildLog) -> Iterator[_Surroundings]:
    for note in plan.settings.notes:
        log.say(note)
    base, env = plan.base, plan.settings.named | plan.settings.env
    if isinstance(base.runner, Container):
        home = folder / "home"
        home.mkdir()
        given = container_settings(plan.settings, plan.asked, plan.environments, home, base.path)
        own = [Mount(path, writable=True) for path in (home, folder / "cwd", folder / "local") if path.exists()]
        for note in given.notes:
            log.say(note)
        with Container(base.runner.engine, base.image, base.python, [*given.mounts, *own]).opened(
            folder / PROCESS_FILE
        ) as runner:
            yield _Surroundings(runner, UV, given.env)
    else:
        if mode := link_mode(plan.settings):
            env["UV_LINK_MODE"] = mode
        env["UV_CACHE_DIR"] = str(plan.environments / uv_cache.OWN_CACHE)
        env["PATH"] = _search_path(plan.asked.python, env)
        yield _Surroundings(base.runner, uv_executable(), env)


class _Build:
    def __init__(self, plan: Plan, folder: Path, output: Path, log: BuildLog) -> None:
        self._plan = plan
        self._folder = folder
        self._log = log
        self._made, self._venv = output / "venv", folder / "venv"
        self._cwd = folder / "cwd"
        self._asked = self._cwd / "asked"
        self._asked.mkdir(parents=True, mode=0o700)
        (self._cwd / "pyproject.toml").write_text("[tool.uv]\n")  # keeps uv from the settings of a project further up
        self._shown: dict[str, str] = {}
        self._options, self._arguments = self._write_asked()
        self._code = folder / "local" / "code"
        self._copied = self._copy_projects()
        cache = CONTAINERS if plan.base.image else ""
        self._find_links = FindLinks(plan.environments, plan.settings.find_links, cache)

    def make(self, surroundings: _Surroundings) -> None:
        """Run uv."""
        runner, uv, env = surroundings.runner, surroundings.uv, surroundings.env
        if self._plan.asked.projects:
            env = {**env, **self._plan.asked.projects.variables}
        self._uv = Uv(runner, uv, self._cwd, env, self._log, self._plan.cancelled, self._folder / PROCESS_FILE)
        self._uv.shown |= self._shown
        if self._plan.distrusted:
            self._uv.run("cache", "clean", *sorted(self._plan.distrusted))
        self._create()
        base, bare, projects = self._plan.base, self._plan.asked.bare, self._plan.asked.projects
        if base.image and not projects:
            self._uv.run_other(image_packages.list_packages(base, self._made, bare=bare))
        if not bare:
            self._install()
            if base.image and not projects:
                self._uv.run_other(image_packages.end_list(base, self._made))

    def publish(self) -> None:
        """Publish what uv has made as the environment."""
        if is_exposed(self._plan.environments) and (found := against_record(self._venv)):
            known = self._plan.fetched_anew
            if known is None or not set(found.files) <= set(known.files):
                raise CacheDamaged(found)
            self._log.say(f"Files of {', '.join(sorted(found.packages))} differ from its RECORD, as they came: {found}")
        self._tidy()
        if self._plan.asked.projects:
            editables.keep(self._venv, self._code, self._copied)
        packages = distributions(self._venv)
        compiled = adopt(self._venv, packages, self._donors())
        describe(self._venv, self._plan.key, self._plan.asked, self._plan.base, packages, compiled=compiled)
        replace_environment(self._plan.environments / self._plan.key, self._venv)
        sync_folder(self._plan.environments)
        self._find_links.note(_names(packages))

    def _create(self) -> None:
        python = self._plan.asked.python
        shown = self._plan.base.python or f"Python {python or '.'.join(map(str, sys.version_info[:3]))}"
        self._log.say(f"Making an environment for {shown}")
        own = str(getattr(sys, "_base_executable", "") or sys.executable) if is_own_python(python) else ""
        wanted = self._plan.base.python or own or python
        try:
            self._uv.run("venv", "--relocatable", "--no-project", "--python", wanted, str(self._made))
        except IndexAway as error:
            raise BuildFailed(
                f"Python {python} is not installed here, and {error.host or 'its server'} could not be reached to download it: "
                f"{error.said}",
                "Install it, or choose another version: uv python list",
            ) from error
        except BuildFailed as error:
            if "No interpreter found" not in error.message:
                raise
            cure = "See those that there are with: uv python list --all-versions. A newer uv knows newer ones."
            raise BuildFailed(f"There is no Python {python} to be had: {error.message}", cure) from error

    def _tidy(self) -> None:
        # Tools that clean up caches and repositories must not mistake an environment for one.
        for name in ("CACHEDIR.TAG", ".gitignore"):
            (self._venv / name).unlink(missing_ok=True)
        # Some versions of uv write the current path into the scripts of some shells.
        for script in self._venv.glob("bin/activate*"):
            if os.fsencode(self._made.parent) in read_inside(self._venv, script):
                script.unlink()

    def _install(self) -> None:
        self._log.say("Installing " + ", ".join(_titles(self._plan.asked)))
        command = ["pip", "install", "--python", str(self._made / "bin" / "python"), *self._plan.settings.args]
        command += [*self._find_links.refresh_arguments(), *self._options]
        command += ["--", *self._arguments] if self._arguments else []
        # A project needs nothing but its build backend, which the cache has after the first build: asking an index takes seconds.
        if self._plan.asked.projects and self._succeeds(*command[:2], "--offline", *command[2:]):
            return
        try:
            self._uv.run(*command)
        except IndexAway:
            self._log.say("The package index does not answer. Trying with the packages in uv's cache")
            if not self._succeeds(*command[:2], "--offline", *command[2:]):
                raise

    def _succeeds(self, *command: str) -> bool:
        try:
            self._uv.run(*command)
        except BuildFailed:
            return False
        return True

    def _write_asked(self) -> tuple[list[str], list[str]]:
        """Write requirement files for uv. Returns the options that name them, and requirements to pass as arguments."""
        asked = self._plan.asked
        arguments: list[str] = []
        names = _file_names(asked)
        files = [ParsedFile(_LINES_FILE, asked.lines), *asked.files]
        options = []
        for name, file in zip([_LINES_FILE, *names], files, strict=True):
            path = self._asked / name
            path.parent.mkdir(exist_ok=True)
            texts = [self._text(line, name, names, arguments) for line in file.lines]
            path.write_text("".join(f"{text}\n" for text in texts if text))
            if any(texts) and not file.constraints_only:
                options += ["-r", f"asked/{name}"]
        return options, arguments

    def _copy_projects(self) -> list[str]:
        """Copy the projects for their build, and name them for uv. Returns the paths of their files."""
        projects = self._plan.asked.projects
        if projects is None:
            return []
        for note in projects.notes:
            self._log.say(note)
        self._shown |= {f"{self._code}/": "", str(self._code): "."}
        self._options.append("--no-deps")
        for folder in projects.extras:
            self._options += ["--editable", str(self._code / folder)]
        return projects.copy(self._code)

    def _text(self, line: Line, file: str, names: list[str], arguments: list[str]) -> str:
        if isinstance(line, Reference):
            return f"{line.option} {os.path.relpath(names[line.file], os.path.dirname(file))}"
        if isinstance(line, str):
            return line
        if not line.path.is_dir():
            return _local_requirement(line, line.path)
        # uv takes a folder named in a file from its cache even if it has changed, but rebuilds one named as an argument.
        # It is built in a copy, as building writes into it.
        copy = self._folder / "local" / str(len(arguments)) / line.path.name
        shutil.copytree(line.path, copy, symlinks=True, ignore=_not_content)
        self._shown[str(copy)] = str(line.path)
        arguments.append(_local_requirement(line, copy))
        return ""

    def _donors(self) -> list[Path]:
        """Return the compiled environments of the same Python, the last used first.

        Byte code from a container is used only in containers, because its Python is not trusted.
        """
        mine = python_of(self._venv)
        found = []
        for path in published_folders(self._plan.environments):
            other = open_environment(path.name, path)
            if other is None or not other.compiled or (other.image and not self._plan.base.image):
                continue
            if python_of(path) == mine:
                found.append(path)
        return found


def _not_content(folder: str, names: list[str]) -> list[str]:
    """Return the names in a local project that are not copied. Its repository is copied: builds derive versions from it."""
    return [name for name in names if NOT_CONTENT.match(name) and name not in (".git", ".hg", ".svn")]


def _local_requirement(line: Local, path: Path) -> str:
    return f"{line.name} @ {path.as_uri()}{line.tail}" if line.name else f"{path.as_uri()}{line.tail}"


def _names(packages: list[Distribution]) -> list[str]:
    return [package.folder.partition("-")[0] for package in packages]


def _file_names(asked: ParsedRequest) -> list[str]:
    """Return a name for each requirements file: its own, in a numbered folder if two have the same."""
    names: list[str] = []
    for index, file in enumerate(asked.files):
        names.append(f"{index}/{file.name}" if file.name in (*names, _LINES_FILE) else file.name)
    return names


def _titles(asked: ParsedRequest) -> list[str]:
    lines = [line.path.name if isinstance(line, Local) else line for line in asked.lines]
    folders = asked.projects.extras if asked.projects else ()
    return [*lines, *(file.name for file in asked.files), *(f"{folder} (editable)" for folder in folders)]


def _search_path(python: str, env: Mapping[str, str]) -> str:
    """Return the PATH on which uv looks for a Python, with the matching version of pyenv in front.

    pyenv puts a `python3.12` on the PATH that works only after `pyenv global 3.12`.
    """
    path = env.get("PATH", os.defpath)
    if is_own_python(python) or not re.match(r"\d+(\.\d+)*\Z", python):
        return path
    root = Path(env.get("PYENV_ROOT") or Path(env.get("HOME") or Path.home(), ".pyenv"))
    wanted = python.split(".")
    found = []
    for version in root.glob("versions/*"):
        parts = version.name.split(".")
        if parts[: len(wanted)] == wanted and all(part.isdigit() for part in parts):
            found.append(([int(part) for part in parts], version / "bin"))
    return os.pathsep.join([*(str(folder) for _, folder in sorted(found, reverse=True)), path])
