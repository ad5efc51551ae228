"""The parts that tests share: a home with a real server in it, a real repository, the real command line."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import select
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import engines
import kinds
import psutil
import pytest
from engines import need_engine
from kinds import (  # noqa: F401  # hooks of pytest
    pytest_collection_modifyitems,
    pytest_runtest_protocol,
    pytest_runtest_teardown,
)
from reruns import pytest_addoption, pytest_sessionfinish, pytest_terminal_summary  # noqa: F401  # the same

from orchestrator.client.client import Client
from orchestrator.environments import EnvironmentRequest, Environments
from orchestrator.errors import Conflict
from orchestrator.home import Home
from orchestrator.records.runs import RunRecord
from orchestrator.spec.run import RunSpec
from orchestrator.states import FINAL
from orchestrator.store.database import Database
from orchestrator.store.store import Store

T = TypeVar("T")
BIN = Path(sys.executable).parent
DEADLINE_S = 30.0
FAST_POLL_S = 0.01
TORCH_REQUEST = EnvironmentRequest("", (os.environ.get("TORCH", "torch"), "transformers>=4.45,<6"), ())


def wait_for(condition: Callable[[], T], what: str, limit_s: float = DEADLINE_S) -> T:
    """The first true value of `condition`; fails when there is none within the limit."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {limit_s} s: {what}")
        time.sleep(FAST_POLL_S)
    return value


def bearing(token: str) -> list[int]:
    """The living processes that have this token in their environment or on their command line, by pid."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            folder = Path("/proc", name)
            if token.encode() in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes():
                found.append(int(name))
    return found


def has_written(pid: int, folder: Path) -> bool:
    """Whether a process holds a file of this folder open that has bytes already, with a name or without one."""
    for name in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found = name.stat()
            is_below = os.readlink(name).startswith(f"{folder}/")
            if is_below and stat.S_ISREG(found.st_mode) and found.st_size:
                return True
    return False


@contextlib.contextmanager
def awaited(pid: int) -> Iterator[None]:
    """Leave only when this process, which must live now, has ended; whoever has to reap it may take longer."""
    pidfd = os.pidfd_open(pid)
    try:
        yield
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(DEADLINE_S * 1000), f"process {pid} has not ended"
    finally:
        os.close(pidfd)


@dataclass
class Done:
    """What a command of `spell` did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its standard output, read as JSON."""
        assert self.out, self
        return json.loads(self.out)

    @property
    def number(self) -> int:
        """The number of the run that it cast."""
        found = re.search(r"Casting spell #(\d+)", self.out)
        assert found, f"nothing was cast: {self}"
        return int(found[1])


class Spell:
    """A home, its server and the command line, as a person has them. `prefix` stands before each command."""

    def __init__(self, root: Path, cwd: Path, env: dict[str, str], prefix: Sequence[str] = ()) -> None:
        self.home, self.cwd, self.env = Home(root), cwd, {**env, "SPELL_HOME": str(root)}
        self._command = [*prefix, str(BIN / "spell")]
        self._client: Client | None = None

    def __call__(self, *words: str, cwd: Path | None = None, env: dict[str, str] | None = None, **options: Any) -> Done:
        """Run `spell WORDS…` to its end, without a terminal."""
        done = subprocess.run(
            [*self._command, *words],
            cwd=cwd or self.cwd,
            env={**self.env, **(env or {})},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=options.pop("timeout", 120),
            check=False,
            **options,
        )
        return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start `spell WORDS…`."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        return subprocess.Popen([*self._command, *words], cwd=self.cwd, env=self.env, **options)

    @property
    def client(self) -> Client:
        """The Python API. It starts the server when none runs."""
        if self._client is None:
            self._client = Client(self.home)
        return self._client

    def cast(self, command: str, **fields: Any) -> int:
        """Cast a run through the API, without code. Returns its number."""
        return self.client.runs.cast(RunSpec(command=command, **fields)).number

    def ended(self, number: int, limit_s: float = DEADLINE_S) -> RunRecord:
        """The run, when it has ended."""

        def final() -> RunRecord | None:
            run = self.client.runs.get(str(number))
            return run if run.state in FINAL else None

        return wait_for(final, f"the end of run {number}", limit_s)

    def run(self, command: str, **fields: Any) -> RunRecord:
        """Cast a run and wait for its end."""
        return self.ended(self.cast(command, **fields))

    def reaches(self, number: int, *states: str) -> None:
        """Wait until the run is in one of these states."""
        wait_for(lambda: self.client.runs.get(str(number)).state in states, f"run {number} in {states}")

    def log(self, number: int) -> bytes:
        """What the run has said."""
        path = self.home.log(number)
        if not path.exists():
            return b""
        with path.open("rb") as file:
            return file.read(os.fstat(file.fileno()).st_size)  # one that grows faster than it is read has no end

    def says(self, number: int, text: bytes) -> None:
        """Wait until the run has said this."""
        wait_for(lambda: text in self.log(number), f"{text!r} in the log of run {number}")

    @property
    def server_pid(self) -> int:
        """The process that holds the home's lock, by what it wrote there."""
        return int(self.home.lock.read_text())

    def kill_server(self) -> None:
        """`kill -9` the server, and wait until it is gone. The next request starts another one."""
        with awaited(self.server_pid):
            os.kill(self.server_pid, signal.SIGKILL)

    def stored(self, number: int) -> tuple[str, int]:
        """State and attempt of a run as the store has them, without asking the server."""
        with contextlib.closing(sqlite3.connect(f"file:{self.home.database}?mode=ro", uri=True)) as store:
            return store.execute("SELECT state, attempt FROM runs WHERE number = ?", (number,)).fetchone()

    @contextlib.contextmanager
    def opened_store(self) -> Iterator[Store]:
        """The store, as a server that is not there would open it, and closed again.

        SQLite's locks are those of the process: while one is open here, nothing here may open and close its files in
        another way, as a copy does. Their locks would be gone, and another process' pages land in the wrong places
        (https://sqlite.org/howtocorrupt.html, 2.2).
        """
        with contextlib.closing(Database(self.home.database)) as database:
            yield Store(database)

    def copy_home(self, to: Path) -> None:
        """Copy the home while it is used, as a backup does."""
        subprocess.run(["cp", "-a", self.home.root, to], check=True)
        for path in [*to.rglob("*.sock"), *to.rglob("line")]:
            path.unlink()

    @contextlib.contextmanager
    def changed_store(self) -> Iterator[sqlite3.Connection]:
        """The store's file, in a transaction of its own, while the server does nothing."""
        with contextlib.closing(sqlite3.connect(self.home.database, timeout=DEADLINE_S, isolation_level=None)) as store:
            store.execute("BEGIN IMMEDIATE")  # first: a server that is frozen while it writes would hold the store
            with self.frozen():
                yield store
                store.execute("COMMIT")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The server does nothing (SIGSTOP) inside this."""
        server = psutil.Process(self.server_pid)
        server.suspend()
        try:
            yield
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                server.resume()

    def clear(self) -> None:
        """End every run."""
        active = [run.number for run in self.client.runs.list(limit=10_000) if run.state not in FINAL]
        for number in active:
            with contextlib.suppress(Conflict):  # it ended meanwhile
                self.client.runs.kill(str(number))
        for number in active:
            self.ended(number)

    def end(self) -> None:
        """End every run and the server."""
        if not self.home.socket.exists():
            return
        self.clear()
        with awaited(self.server_pid):
            self.client.server.stop()
            self.client.close()


def git(repo: Path, *words: str) -> str:
    """Run git in a repository."""
    done = subprocess.run(["git", *words], cwd=repo, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def token() -> str:
    """Nine digits that no other process bears; also a very long time to sleep."""
    return str(900_000_000 + random.randrange(99_999_999))


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A git repository with one commit of one script."""
    path = tmp_path / "project"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    git(path, "config", "user.email", "person@example.org")
    git(path, "config", "user.name", "A Person")
    (path / "hello.py").write_text("print('hello')\n")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "Say hello")
    return path


@contextlib.contextmanager
def homes(folder: Path) -> Iterator[Callable[..., Spell]]:
    """Makes homes with `Spell`; `config` is the text of their config.toml, other words are environment variables.

    Their runs are processes; those of homes made with `docker=True` are containers of the test image.
    """
    with contextlib.ExitStack() as ends:

        def make(
            name: str = "home",
            config: str = "",
            cwd: Path | None = None,
            root: Path | None = None,
            prefix: Sequence[str] = (),
            *,
            docker: bool = False,
            **env: str,
        ) -> Spell:
            kinds.allow("server")
            root = root or folder / name
            root.mkdir(exist_ok=True)
            if docker:
                need_engine()
                config += engines.CONFIG
            elif "executor =" not in config:
                config = f'executor = "process"\n{config}'
            if config:
                (root / "config.toml").write_text(config)
            # a worker of pytest-xdist has a size of a terminal, which is not that of a test's terminal
            ours = ("SPELL_", "COLUMNS", "LINES")
            clean = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
            made = Spell(root, cwd or folder, {**clean, **env}, prefix)
            ends.callback(made.end)
            return made

        yield make


@pytest.fixture
def make_spell(tmp_path: Path) -> Iterator[Callable[..., Spell]]:
    """See `homes`."""
    with homes(tmp_path) as make:
        yield make


@pytest.fixture
def docker_spell(make_spell: Callable[..., Spell]) -> Spell:
    """A fresh home whose runs are containers."""
    return make_spell(docker=True)


@pytest.fixture(scope="module")
def make_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Spell]]:
    """As `make_spell`, for homes that all tests of a module share."""
    with homes(tmp_path_factory.mktemp("shared")) as make:
        yield make


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home without runs that has the environment of `TORCH_REQUEST`. It takes long to make: tests that use it are in the
    xdist_group `torch_home`."""
    home = Home(tmp_path_factory.mktemp("torch"))
    home.create()
    Environments(home).ensure(TORCH_REQUEST, home.store / "build.log", lambda: False)
    return home


@pytest.fixture
def spell(make_spell: Callable[..., Spell]) -> Spell:
    """A fresh home."""
    return make_spell()
