"""Throughput of many runs at once, and of big files."""

from __future__ import annotations

import time

from benchmarks.measure import Bench, Row, medians
from orchestrator.records.runs import RunRecord
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import RunSpec

_BURST = 500
_REPEATS = 3
_BIG, _SMALL = 4 << 30, 4 << 10


def burst(bench: Bench) -> list[Row]:
    """Measure 500 trivial runs, cast as fast as the server accepts them, until the last has ended."""
    spec = RunSpec(command="true")
    numbers = [bench.client.runs.cast(spec).number for _ in range(_BURST)]
    bench.ended(numbers[-1])
    runs = [bench.ended(number) for number in numbers]
    rate = _BURST / (max(run.ended_at or 0 for run in runs) - runs[0].created_at)
    complete = sum(run.state == "complete" for run in runs)
    in_order = _claim_times(bench, numbers) == sorted(_claim_times(bench, numbers))
    return [
        Row(f"{_BURST} trivial runs in a burst, end to end", f"{rate:.0f} a second", "≥ 20 a second", rate >= 20),
        Row("… complete", f"{complete}", f"{_BURST}", complete == _BURST),
        Row("… machines found in the order of casting", "yes" if in_order else "no", "yes", in_order),
    ]


def _claim_times(bench: Bench, numbers: list[int]) -> list[float]:
    return [next(e.at for e in bench.client.runs.events(str(number)) if e.state == "building") for number in numbers]


def big_files(bench: Bench) -> list[Row]:
    """Measure saving and mounting 4 GiB, compared with 4 KiB."""
    made = {size: bench.run(RunSpec(command=f"fallocate -l {size} file")) for size in (_BIG, _SMALL)}
    saving = {size: sorted(_saving_s(bench, size) for _ in range(_REPEATS))[_REPEATS // 2] for size in made}
    mount_big_s, mount_small_s = medians(
        _REPEATS * 3,
        lambda: bench.run(_mounting(made[_BIG])),
        lambda: bench.run(_mounting(made[_SMALL])),
    )
    return [
        _against("mounting a 4 GiB output (whole run), against 4 KiB", mount_big_s, mount_small_s),
        _against("saving one 4 GiB file, against 4 KiB", saving[_BIG], saving[_SMALL]),
    ]


def _mounting(run: RunRecord) -> RunSpec:
    return RunSpec(command="test -f file", mounts=(Mount(f"runs/{run.number}/file", "file"),))


def _saving_s(bench: Bench, size: int) -> float:
    """Return the seconds from the end of the command to the final state, after the last hash has been computed."""
    newest = str(bench.client.runs.list(limit=1)[0].number)
    while any(item.sha256 is None for item in bench.client.runs.artifacts(newest)):
        time.sleep(0.05)
    run = bench.run(RunSpec(command=f"fallocate -l {size} file"))
    at = {event.state: event.at for event in bench.client.runs.events(str(run.number))}
    return at["complete"] - at["saving"]


def _against(what: str, big_s: float, small_s: float) -> Row:
    found = big_s / small_s
    measured = f"{found:.2f} × ({big_s * 1000:.0f} ms, {small_s * 1000:.0f} ms)"
    return Row(what, measured, "≤ 1.2 ×", found <= 1.2)
