"""Time to reuse an earlier run, with a million others in the store."""

from __future__ import annotations

from benchmarks.filling import fill
from benchmarks.measure import BASELINE, BASELINE_WORDS, BIN, Bench, Row, command, medians, ratio
from orchestrator.spec.run import RunSpec

_REPEATS = 15
_CASTS = 200
_RUNS = 1_000_000


def reuse(bench: Bench) -> list[Row]:
    """Measure the command `spell run --reuse` with an identical complete run, and the server's part of it."""
    bench.spell("run", "true")  # has the code of the repository
    fill(bench.home.database, _RUNS, {"fingerprint": "hex(randomblob(32))"})
    base_s, hit_s = medians(
        _REPEATS,
        command(BASELINE, bench.env, bench.repo),
        command([str(BIN / "spell"), "run", "--reuse", "true"], bench.env, bench.repo),
    )
    spec = RunSpec(command="true")
    (server_s,) = medians(_CASTS, lambda: bench.client.runs.cast(spec, reuse=True))
    assert bench.client.runs.cast(spec, reuse=True).reused
    return [
        Row(BASELINE_WORDS, f"{base_s * 1000:.0f} ms", "", holds=True),
        ratio(f"`spell run --reuse true`, a hit among {_RUNS:,} runs", hit_s, base_s, 1.5),
        Row("… of which the server and the way to it", f"{server_s * 1000:.1f} ms", "", holds=True),
    ]
