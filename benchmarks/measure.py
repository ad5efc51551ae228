"""Measures medians of several repeats, which are compared within one process, on a fresh home with its server."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.client.client import Client
from orchestrator.home import Home
from orchestrator.records.runs import RunRecord
from orchestrator.spec.run import RunSpec

BIN = Path(sys.executable).parent
BASELINE = [sys.executable, "-c", "import click, httpx"]
BASELINE_WORDS = 'B = `python -c "import click, httpx"`'


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: subject, measurement, limit, and whether the limit holds."""

    what: str
    measured: str
    limit: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Bench:
    """A home with a running server, and a small repository to call from."""

    home: Home
    client: Client
    repo: Path
    env: dict[str, str]

    def spell(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Run `spell WORDS…` from the repository."""
        return subprocess.run(
            [str(BIN / "spell"), *words], cwd=self.repo, env=self.env, check=True, capture_output=True
        )

    def ended(self, number: int) -> RunRecord:
        """Wait for the end of a run, without polling, and return its record."""
        self.client.runs.wait(str(number))
        return self.client.runs.get(str(number))

    def run(self, spec: RunSpec) -> RunRecord:
        """Cast a run, wait for its end and return its record."""
        return self.ended(self.client.runs.cast(spec).number)

    def server(self) -> psutil.Process:
        """The server's process."""
        return psutil.Process(self.client.server.get().pid)


@contextmanager
def bench(config: str) -> Iterator[Bench]:
    """Make a fresh home on the disk of $TMPDIR with a server of this configuration, and remove it afterwards."""
    root = Path(tempfile.mkdtemp(prefix="spell-bench-"))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # it would make every start slower than a user's
    env["SPELL_HOME"] = str(root / "home")
    repo = root / "repo"
    repo.mkdir()
    (repo / "train.py").write_text("print('training')\n")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *words], cwd=repo, check=True, capture_output=True)
    home = Home(root / "home")
    home.create()
    home.config.write_text(config)
    client = Client(home)
    made = Bench(home, client, repo, env)
    try:
        made.run(RunSpec(command="true"))  # starts the server and builds the bare environment
        yield made
    finally:
        process = made.server()
        client.server.stop()
        process.wait(30)
        subprocess.run(["chmod", "-R", "u+w", str(root)], check=False)
        shutil.rmtree(root)


def seconds(action: Callable[[], object]) -> float:
    """Return how many seconds one call of an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def medians(repeats: int, *actions: Callable[[], object], ready: Callable[[], object] = lambda: None) -> list[float]:
    """Return the median time of each action, in seconds. The actions take turns, so that drift affects all alike.

    Args:
        repeats: calls of each action, after one that is not counted.
        actions: to measure.
        ready: called before each action, to wait until the last one is finished; its time is not counted.
    """
    times = [[(ready(), seconds(action))[1] for action in actions] for _ in range(1 + repeats)]
    return [statistics.median(column[1:]) for column in zip(*times, strict=True)]


def command(words: list[str], env: dict[str, str], cwd: Path) -> Callable[[], object]:
    """Return an action that runs a command and discards its output."""
    return lambda: subprocess.run(words, env=env, cwd=cwd, check=True, capture_output=True)


def ratio(what: str, value_s: float, base_s: float, limit: float, base: str = "B") -> Row:
    """Return a row that compares a time with a baseline of the same process."""
    found = value_s / base_s
    return Row(what, f"{found:.2f} {base} ({value_s * 1000:.0f} ms)", f"≤ {limit:g} {base}", found <= limit)
