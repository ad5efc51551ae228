"""Times of commands, compared with the time that Python takes to import click and httpx."""

from __future__ import annotations

import sqlite3
import time

from benchmarks.measure import BASELINE, BASELINE_WORDS, BIN, Bench, Row, command, medians, ratio

_REPEATS = 15
_RUNS = 10_000


def commands(bench: Bench) -> list[Row]:
    """Measure help, ps with 10,000 runs in the store, and a whole trivial run."""
    spell = str(BIN / "spell")
    baseline = command(BASELINE, bench.env, bench.repo)
    base_s, help_s, run_s = medians(
        _REPEATS,
        baseline,
        command([spell, "--help"], bench.env, bench.repo),
        command([spell, "run", "true"], bench.env, bench.repo),
    )
    _fill(bench)
    again_s, ps_s = medians(_REPEATS, baseline, command([spell, "ps"], bench.env, bench.repo))
    return [
        Row(BASELINE_WORDS, f"{base_s * 1000:.0f} ms", "", holds=True),
        ratio("`spell --help`", help_s, base_s, 0.6),
        ratio(f"`spell ps`, {_RUNS:,} runs in the store", ps_s, again_s, 1.5),
        ratio("`spell run true`, server warm, all records and saving", run_s, base_s, 2.0),
    ]


def _fill(bench: Bench) -> None:
    """Copy the first run in the store until it has 10,000. To cast them would take too long."""
    with sqlite3.connect(bench.home.database, timeout=30) as store:
        columns = [row[1] for row in store.execute("PRAGMA table_info(runs)") if row[1] != "number"]
        names = ", ".join(f'"{name}"' for name in columns)
        have = store.execute("SELECT count(*) FROM runs").fetchone()[0]
        store.executemany(
            f"INSERT INTO runs ({names}) SELECT {names} FROM runs WHERE number = 1",
            [()] * (_RUNS - have),
        )
        store.execute("UPDATE runs SET created_at = ?", (time.time(),))
