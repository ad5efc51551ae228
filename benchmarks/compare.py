"""Time to compare two runs with many outputs."""

from __future__ import annotations

from benchmarks.measure import BIN, Bench, Row, command, medians
from orchestrator.spec.run import RunSpec

_REPEATS = 9
_OUTPUTS = 10_000
_LIMIT_S = 1.0
_MAKE = "python -c \"for i in range({count}): open(f'{{i}}', 'w').write(str(i + {more} * (i < {differing})))\""


def compare(bench: Bench) -> list[Row]:
    """Measure the command `spell diff`, with 100 different outputs and with all different."""
    rows = []
    before = _run(bench, 0, 0)
    for differing, words in ((100, "100 of them differ"), (_OUTPUTS, "all of them differ")):
        after = _run(bench, 1, differing)
        while (found := bench.client.compare.diff(str(before), str(after), ["outputs"])).outputs_unhashed:
            pass
        assert len(found.outputs) == differing
        (taken_s,) = medians(
            _REPEATS, command([str(BIN / "spell"), "diff", str(before), str(after)], bench.env, bench.repo)
        )
        rows.append(
            Row(
                f"`spell diff`, two runs with {_OUTPUTS:,} outputs, {words}",
                f"{taken_s * 1000:.0f} ms",
                "≤ 1 s",
                taken_s <= _LIMIT_S,
            )
        )
    return rows


def _run(bench: Bench, more: int, differing: int) -> int:
    run = bench.run(RunSpec(command=_MAKE.format(count=_OUTPUTS, more=more, differing=differing)))
    assert run.outputs_count == _OUTPUTS, run.message
    return run.number
