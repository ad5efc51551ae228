"""Times of lists with a million runs in the store, compared with a thousand."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from benchmarks.filling import fill
from benchmarks.measure import BIN, Bench, Row, command, medians
from orchestrator.client.client import Client
from orchestrator.home import Home
from orchestrator.spec.run import RunSpec

_REPEATS = 15
_SMALL, _LARGE = 1_000, 1_000_000
_LIMIT = 1.5


def many_runs(bench: Bench) -> list[Row]:
    """Measure the commands `ps`, `ps --label`, `search` and `info` on two homes with a server each, in turns."""
    with tempfile.TemporaryDirectory(prefix="spell-bench-") as folder:
        home = Home(Path(folder))
        home.create()
        home.config.write_text(bench.home.config.read_text())
        small = Client(home)
        try:
            small.runs.wait(str(small.runs.cast(RunSpec(command="true")).number))
            _fill(home, _SMALL)
            _fill(bench.home, _LARGE)
            return [_compared(bench, home, words) for words in _COMMANDS]
        finally:
            small.server.stop()


_COMMANDS = (
    ["ps"],
    ["ps", "--label", "common"],
    ["ps", "--label", "rare"],
    ["ps", "--state", "failed"],
    ["search", "train.py"],
    ["search", "--lr 77 "],
    ["info", "500"],
    ["info", "latest"],
)


def _compared(bench: Bench, home: Home, words: list[str]) -> Row:
    typed = [str(BIN / "spell"), words[0], *(["--", *words[1:]] if words[0] == "search" else words[1:])]
    small_s, large_s = medians(
        _REPEATS,
        command(typed, {**bench.env, "SPELL_HOME": str(home.root)}, bench.repo),
        command(typed, bench.env, bench.repo),
    )
    found = large_s / small_s
    measured = f"{found:.2f} × ({large_s * 1000:.0f} ms, {small_s * 1000:.0f} ms)"
    what = f"`spell {' '.join(words)}`, {_LARGE:,} runs in the store, against {_SMALL:,}"
    return Row(what, measured, f"≤ {_LIMIT:g} ×", found <= _LIMIT)


def _fill(home: Home, count: int) -> None:
    """Fill a store with runs of different commands, labels and states."""
    own = {
        "command": "'python train.py --lr ' || i || ' --seed ' || (i * 7919 % 1000)",
        "description": "'Try number ' || i",
        "state": "CASE WHEN i % 10 = 0 THEN 'failed' ELSE 'complete' END",
        "fingerprint": "hex(randomblob(32))",
    }
    fill(home.database, count, own)
    with sqlite3.connect(home.database, timeout=60) as store:
        store.execute("INSERT INTO labels (run, label) SELECT number, 'common' FROM runs WHERE number % 2 = 0")
        store.execute(
            "INSERT INTO labels (run, label) SELECT number, 'rare' FROM runs WHERE number % 100 = 0 AND number < 1000"
        )
