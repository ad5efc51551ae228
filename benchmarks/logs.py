"""Throughput and delay of a followed log, and searching in a long one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

from benchmarks.measure import BIN, Bench, Row
from orchestrator.spec.run import RunSpec

_BYTES = 1 << 30
_LINES = 200
_LINE_EVERY_S = 0.02
_LOOKED_FOR = (["not there"], ["line", "-n", "50"], [r"/loss=\d+\.\d+e-[5-9]/"])


def logs(bench: Bench) -> list[Row]:
    """Measure 1 GiB through `spell logs -f`, and the age of 200 lines when a follower gets them."""
    number = bench.client.runs.cast(RunSpec(command=f"yes 'a line of a log' | head -c {_BYTES}")).number
    bench.ended(number)
    started = time.perf_counter()
    with subprocess.Popen(
        [str(BIN / "spell"), "logs", "-f", str(number)],
        env=bench.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as follower:
        assert follower.stdout is not None
        seen = sum(len(chunk) for chunk in iter(lambda: follower.stdout.read1(1 << 20), b""))  # type: ignore[union-attr]
    speed = seen / (time.perf_counter() - started) / 1e6
    found = [_searched(bench, number, words) for words in _LOOKED_FOR]
    ages = sorted(_ages(bench))
    p99 = ages[int(len(ages) * 0.99) - 1]
    return [
        Row("`spell logs -f`", f"{speed:.0f} MB/s", "≥ 50 MB/s", speed >= 50 and seen == _BYTES),
        Row(
            "`spell logs --search` in 1 GiB: a text that is nowhere, one in each line with `-n 50`, an expression",
            ", ".join(f"{took_s:.2f} s" for took_s in found),
            "≤ 1 s",
            max(found) <= 1,
        ),
        Row("a line is seen after it was written, p99", f"{p99 * 1000:.0f} ms", "≤ 100 ms", p99 <= 0.1),
    ]


def _searched(bench: Bench, number: int, words: Sequence[str]) -> float:
    """Return the seconds that `spell logs --search WORDS…` takes."""
    started = time.perf_counter()
    command = [str(BIN / "spell"), "logs", str(number), "--search", *words]
    subprocess.run(command, env=bench.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - started


def _ages(bench: Bench) -> list[float]:
    """Return the seconds between the writing of each line, which contains its time, and its arrival."""
    script = f"import time\nfor _ in range({_LINES}): print(time.time()); time.sleep({_LINE_EVERY_S})"
    number = bench.client.runs.cast(RunSpec(command=f"python -c '{script}'")).number
    found: list[float] = []
    rest = b""
    for item in bench.client.runs.follow(str(number)):
        now = time.time()
        *lines, rest = (rest + item.data).split(b"\n")
        found += [now - float(line) for line in lines]
    assert len(found) == _LINES
    return found
