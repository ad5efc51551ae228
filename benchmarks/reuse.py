"""What it takes to be given an earlier run, with a million others in the store."""

from __future__ import annotations

import sqlite3

from benchmarks.measure import BASELINE, BASELINE_WORDS, BIN, Bench, Row, command, medians, ratio
from orchestrator.spec import RunSpec

_REPEATS = 15
_CASTS = 200
_RUNS = 1_000_000
_LIMIT_S = 0.005


def reuse(bench: Bench) -> list[Row]:
    """`spell run --reuse` of something that is complete: the whole command, and the server's part of it."""
    bench.spell("run", "true")  # with the code of the repository
    _fill(bench)
    base_s, hit_s = medians(
        _REPEATS,
        command(BASELINE, bench.env, bench.repo),
        command([str(BIN / "spell"), "run", "--reuse", "true"], bench.env, bench.repo),
    )
    spec = RunSpec(command="true")
    (server_s,) = medians(_CASTS, lambda: bench.client.cast(spec, reuse=True))
    assert bench.client.cast(spec, reuse=True).reused
    return [
        Row(BASELINE_WORDS, f"{base_s * 1000:.0f} ms", "", holds=True),
        ratio(f"`spell run --reuse true`, a hit among {_RUNS:,} runs", hit_s, base_s, 1.5),
        Row("… of which the server and the way to it", f"{server_s * 1000:.1f} ms", "≤ 5 ms", server_s <= _LIMIT_S),
    ]


def _fill(bench: Bench) -> None:
    """Copy the first run, with fingerprints of their own, until there are so many; behind the server's back."""
    with sqlite3.connect(bench.home.database, timeout=30) as store:
        columns = [row[1] for row in store.execute("PRAGMA table_info(runs)") if row[1] != "number"]
        names = ", ".join(f'"{name}"' for name in columns)
        values = ", ".join("hex(randomblob(32))" if name == "fingerprint" else f'"{name}"' for name in columns)
        store.execute(
            f"WITH RECURSIVE counted(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM counted WHERE i < {_RUNS}) "
            f"INSERT INTO runs ({names}) SELECT {values} FROM counted CROSS JOIN runs WHERE number = 1"
        )
