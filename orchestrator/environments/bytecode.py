"""Byte code of environments: linked from another environment that has it, else compiled in the background.

Compiling torch and transformers takes far longer than linking them, and importing them without byte code takes two to
three times as long. So a new environment gets, before it is published, the byte code of those of its packages that an
older environment has (another set of packages, mostly the same ones), by hard links; and the rest is compiled in the
background by the environment's own Python, at low priority; in a container if the environment is for an image.

The byte code carries no time stamp ("unchecked hash", PEP 552): environments never change, and so it stays valid in
copies and links. Only new files are made; files shared with uv's cache are never changed.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from orchestrator.environments.containers import Container, Mount
from orchestrator.environments.host import end_group
from orchestrator.environments.installed import Distribution, site_folder
from orchestrator.environments.orphans import COMPILING, PROCESS_FILE, discard
from orchestrator.errors import SpellError
from orchestrator.loops import Loop

MARKER = ".compiled"
BYTECODE = ".bytecode-"
"""Prefix of a key: the folder where runs keep byte code until the environment is compiled."""
_CACHE = "__pycache__"
_NICE = 19
_OPTIONS = ("-qq", "--invalidation-mode", "unchecked-hash")
# This runs in a container: one process for each list of files.
_COMPILE_LISTS = f"""
import os, subprocess, sys
os.nice({_NICE})
command = [sys.executable, "-I", "-S", "-m", "compileall", *{_OPTIONS}, "-i"]
processes = [subprocess.Popen([*command, path]) for path in sys.argv[1:]]
sys.exit(max(abs(process.wait()) for process in processes))
"""


def adopt(environment: Path, wanted: Iterable[Distribution], donors: Iterable[Path]) -> bool:
    """Link the byte code that compiled environments of the same Python have for the same files.

    Args:
        environment: the new one, not published yet.
        wanted: its packages.
        donors: compiled environments of the same Python.
    Returns:
        Whether nothing is left to compile.
    """
    missing = {package.folder: package for package in wanted if package.modules}
    site = site_folder(environment).resolve()
    if not site.is_relative_to(environment.resolve()):
        return False
    for donor in donors:
        if not missing:
            break
        with suppress(OSError):  # a donor may be removed at any time
            donor_site = site_folder(donor)
            here = {entry.name for entry in os.scandir(donor_site)} & missing.keys()
            for folder in here:
                if _adopt_package(missing[folder], donor_site, site):
                    del missing[folder]
    return not missing


def _adopt_package(package: Distribution, donor: Path, site: Path) -> bool:
    modules: dict[str, list[str]] = {}
    for module in package.modules:
        folder, _, name = module.rpartition("/")
        modules.setdefault(folder, []).append(name)
    try:
        adopted = [_adopt_folder(donor / folder, site / folder, names) for folder, names in modules.items()]
    except OSError:  # another file system, or too many hard links to one file: it will be compiled
        return False
    return all(adopted)


def _adopt_folder(donor: Path, folder: Path, names: list[str]) -> bool:
    compiled: dict[str, str] = {}
    with suppress(FileNotFoundError):
        for name in os.listdir(donor / _CACHE):
            compiled[name.rsplit(".", 2)[0]] = name
    same = True
    source_folder, target_folder = os.path.join(donor, _CACHE), os.path.join(folder, _CACHE)
    if os.path.realpath(target_folder) != target_folder:
        return False  # a link, which a hostile build may have made to lead us anywhere
    os.makedirs(target_folder, exist_ok=True)
    for name in names:
        if not _same_content(os.path.join(donor, name), os.path.join(folder, name)):
            same = False
        elif found := compiled.get(name[:-3]):
            with suppress(FileExistsError):
                os.link(os.path.join(source_folder, found), os.path.join(target_folder, found))
    return same


def _same_content(one: str, other: str) -> bool:
    """Whether two files are the same file of uv's cache, or equal in every byte. Names and metadata do not count."""
    first, second = os.stat(one), os.stat(other)
    if first.st_ino == second.st_ino and first.st_dev == second.st_dev:
        return True
    return first.st_size == second.st_size and filecmp.cmp(one, other, shallow=False)


def uncompiled(environment: Path) -> list[str]:
    """Return the Python files of an environment that have no byte code, the largest first."""
    found: list[tuple[int, str]] = []
    for folder, _, names in os.walk(site_folder(environment)):
        sources = [name for name in names if name.endswith(".py")]
        if sources:
            try:
                compiled = {name.rsplit(".", 2)[0] for name in os.listdir(os.path.join(folder, _CACHE))}
            except FileNotFoundError:
                compiled = set()
            paths = (os.path.join(folder, name) for name in sources if name[:-3] not in compiled)
            found += [(os.stat(path).st_size, path) for path in paths]
    return [path for _, path in sorted(found, reverse=True)]


class Compiler:
    """One background thread that compiles what `pending` names, until nothing is left; then it waits to be woken.

    Args:
        pending: returns the published environments without byte code, in the order of compiling.
        container: returns where an environment is compiled; None for this machine. Raises `BuildFailed` when no engine
            is available.

    Attributes:
        loop: each of its passes compiles all that is pending.
    """

    def __init__(
        self, pending: Callable[[], list[Path]], container: Callable[[Path], Container | None] = lambda _: None
    ) -> None:
        self._pending = pending
        self._container = container
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.loop = Loop("compile-environments", self.compile_pending)

    def start(self) -> None:
        """Start to compile what is pending."""
        self.loop.start()

    def wake(self) -> None:
        """Compile what has become pending."""
        self.loop.wake()

    def close(self) -> None:
        """Stop. The next start compiles the rest."""
        self.loop.close(limit_s=0)  # first: from now on no process is started
        with self._lock:
            for process in self._processes:
                end_group(process)
        self.loop.close()

    def compile_pending(self) -> None:
        """Compile until nothing is pending."""
        given_up: set[Path] = set()
        with self._turn:
            while todo := [path for path in self._pending() if path not in given_up]:
                if not self._compile(todo[0]):
                    given_up.add(todo[0])
                if self.loop.is_closing():
                    return

    def _compile(self, environment: Path) -> bool:
        try:
            files = uncompiled(environment)
            workers = max(1, min(os.cpu_count() or 1, len(files) // 20 + 1)) if files else 0
            lists = [files[index::workers] for index in range(workers)]
            container = self._container(environment) if lists else None
            if container is not None:
                codes = [self._compile_inside(container, environment, lists)]
            else:
                for chosen in lists:
                    self._start(environment, chosen)
                codes = [process.wait() for process in self._processes]
        except (OSError, SpellError):
            # Removed meanwhile, the disk is full, or its image is gone: runs import without byte code, only slower.
            return False
        finally:
            with self._lock:
                self._processes.clear()
        # 1: some files are no valid Python for this version, as happens in many packages.
        if self.loop.is_closing() or any(code not in (0, 1) for code in codes):
            return False
        return _finish(environment)

    def _compile_inside(self, container: Container, environment: Path, lists: list[list[str]]) -> int:
        folder = Path(tempfile.mkdtemp(prefix=f"{COMPILING}{environment.name}-", dir=environment.parent))
        try:
            paths = [folder / str(index) for index in range(len(lists))]
            for path, files in zip(paths, lists, strict=True):
                path.write_bytes(os.fsencode("".join(f"{file}\n" for file in files)))
            mounts = [Mount(environment, writable=True), *map(Mount, paths)]
            return container.with_mounts(mounts).run(
                [str(environment / "bin" / "python"), "-I", "-S", "-c", _COMPILE_LISTS, *map(str, paths)],
                cwd=Path("/"),
                env={},
                process_file=folder / PROCESS_FILE,
                output=lambda _: None,
                cancelled=self.loop.is_closing,
            )
        finally:
            discard(folder)

    def _start(self, environment: Path, files: list[str]) -> None:
        nice = [shutil.which("nice") or "", "-n", str(_NICE)]
        command = [str(environment / "bin" / "python"), "-I", "-S", "-m", "compileall", *_OPTIONS, "-i", "-"]
        with self._lock:
            if self.loop.is_closing():
                return
            process = subprocess.Popen(
                [*nice, *command] if nice[0] else command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=dict(_clean_environment()),
                cwd="/",
                start_new_session=True,
            )
            self._processes.append(process)
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(os.fsencode("\n".join(files) + "\n"))


def _clean_environment() -> Iterator[tuple[str, str]]:
    """Yield the server's variables without those for its Python: `PYTHONDONTWRITEBYTECODE` would prevent compiling."""
    for name, value in os.environ.items():
        if not name.startswith("PYTHON"):
            yield name, value


def _finish(environment: Path) -> bool:
    """Mark an environment as compiled after it was synced to the disk: the mark also says that it was synced."""
    os.sync()
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # a container may have put a link there
        os.close(os.open(environment / MARKER, flags, 0o644))
    except OSError:
        return False
    return True
