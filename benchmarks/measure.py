"""How things are measured: medians of several, compared within one run, on a home and a server of their own."""

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
    """A line of the table: what was measured, the figure, the limit, and whether it holds."""

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
        """The run, when it has ended; told by the server, not asked for again and again."""
        self.client.runs.wait(str(number))
        return self.client.runs.get(str(number))

    def run(self, spec: RunSpec) -> RunRecord:
        """Cast a run and wait for its end."""
        return self.ended(self.client.runs.cast(spec).number)

    def server(self) -> psutil.Process:
        """The server's process."""
        return psutil.Process(self.client.server.get().pid)


@contextmanager
def bench(config: str) -> Iterator[Bench]:
    """A fresh home with a server of this configuration, on the disk of $TMPDIR; removed afterwards."""
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
        made.run(RunSpec(command="true"))  # the server and the bare environment are there
        yield made
    finally:
        process = made.server()
        client.server.stop()
        process.wait(30)
        subprocess.run(["chmod", "-R", "u+w", str(root)], check=False)
        shutil.rmtree(root)


def seconds(action: Callable[[], object]) -> float:
    """How long it takes once."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def medians(repeats: int, *actions: Callable[[], object], ready: Callable[[], object] = lambda: None) -> list[float]:
    """The median time of each action, in seconds; they take turns, so that drift hits all alike.

    Args:
        ready: waits until nothing is left to be done of the action before; what it takes counts for none.
    """
    times = [[(ready(), seconds(action))[1] for action in actions] for _ in range(1 + repeats)]
    return [statistics.median(column[1:]) for column in zip(*times, strict=True)]


def command(words: list[str], env: dict[str, str], cwd: Path) -> Callable[[], object]:
    """An action that runs a command, its output thrown away."""
    return lambda: subprocess.run(words, env=env, cwd=cwd, check=True, capture_output=True)


def ratio(what: str, value_s: float, base_s: float, limit: float, base: str = "B") -> Row:
    """A row that compares with a baseline of the same run."""
    found = value_s / base_s
    return Row(what, f"{found:.2f} {base} ({value_s * 1000:.0f} ms)", f"≤ {limit:g} {base}", found <= limit)
