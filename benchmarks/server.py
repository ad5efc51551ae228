"""Start time and memory of the server."""

from __future__ import annotations

import time

from benchmarks.measure import Bench, Row, seconds
from orchestrator.client.launch import ensure_server
from orchestrator.spec.run import RunSpec

_RUNS = 1000
_STARTS = 5
_GROWTH_BYTES = 4 << 20


def server(bench: Bench) -> list[Row]:
    """Measure starts, and the memory before and after a thousand runs."""
    starts = sorted(_start_s(bench) for _ in range(_STARTS))
    idle = bench.server().memory_info().rss
    _cast(bench, _RUNS)  # fills caches and the allocator
    before = bench.server().memory_info().rss
    _cast(bench, _RUNS)
    grown = bench.server().memory_info().rss - before
    ready = starts[_STARTS // 2]
    return [
        Row("`spelld` ready", f"{ready:.2f} s", "≤ 1 s", ready <= 1),
        Row("`spelld` resident, idle", f"{idle / 1e6:.0f} MB", "≤ 100 MB", idle <= 100e6),
        Row(f"… grown over {_RUNS:,} more runs", f"{grown / 1e6:.1f} MB", "none (< 4 MB)", grown < _GROWTH_BYTES),
    ]


def _start_s(bench: Bench) -> float:
    process = bench.server()
    bench.client.server.stop()
    process.wait(30)
    return seconds(lambda: ensure_server(bench.home))


def _cast(bench: Bench, count: int) -> None:
    numbers = [bench.client.runs.cast(RunSpec(command="true")).number for _ in range(count)]
    for number in numbers:
        bench.ended(number)
    time.sleep(0.1)
