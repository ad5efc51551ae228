"""Times of a new environment whose packages are in uv's cache, and of a known one."""

from __future__ import annotations

import os

from benchmarks.measure import Bench, Row
from orchestrator.spec.run import RunSpec

_PACKAGES = ("transformers>=4.45,<6", "tqdm")


def environments(bench: Bench) -> list[Row]:
    """Measure torch and transformers, after filling uv's cache: once under a new key, once under the same key."""
    torch = os.environ.get("TORCH", "torch")
    _building_s(bench, (torch, *_PACKAGES))
    new_s = _building_s(bench, (torch, *_PACKAGES, "six"))
    known_s = _building_s(bench, (torch, *_PACKAGES, "six"))
    return [
        Row(
            f"environment with {torch} and transformers, packages in uv's cache", f"{new_s:.2f} s", "≤ 3 s", new_s <= 3
        ),
        Row("… known key", f"{known_s * 1000:.0f} ms", "at once (≤ 50 ms)", known_s <= 0.05),
    ]


def _building_s(bench: Bench, packages: tuple[str, ...]) -> float:
    run = bench.run(RunSpec(command="true", pip=packages))
    assert run.state == "complete", run.message
    at = {event.state: event.at for event in bench.client.runs.events(str(run.number))}
    return at["running"] - at["building"]
