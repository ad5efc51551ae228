"""Runs in containers, compared with the engine alone. It needs a Docker engine and `IMAGE`."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.measure import BIN, Bench, Row, command, medians, seconds
from orchestrator.spec.run import RunSpec

IMAGE = os.environ.get("SPELL_BENCH_IMAGE", "spell-test-base:bookworm")
CONFIG = (
    f"executor = 'docker'\n[docker]\nbase_image = '{IMAGE}'\n[machine_types.cpu]\ncpus = {(os.cpu_count() or 2) / 2}\n"
)
_REPEATS = 15
_BURST = 100
_MORE_S = 0.15
_AT_ONCE, _FREE_LIMIT_S = 2, 1.0
_PACKAGES = ("transformers>=4.45,<6", "tqdm")


def containers(bench: Bench) -> list[Row]:
    """Measure a whole trivial run in a container, and one after an edit of the code."""
    engine = command(["docker", "run", "--rm", IMAGE, "true"], dict(os.environ), bench.repo)
    spell = command([str(BIN / "spell"), "run", "--force", "true"], bench.env, bench.repo)

    def edited() -> object:
        (bench.repo / "train.py").write_text(f"print({time.time()})\n")
        return spell()

    engine_s, run_s, edited_s = medians(_REPEATS, engine, spell, edited, ready=lambda: _await_machine(bench))
    words = f"D = `docker run --rm {IMAGE} true`"
    return [
        Row(words, f"{engine_s * 1000:.0f} ms", "", holds=True),
        _overhead("`spell run true` in a container, all known", run_s, engine_s),
        _overhead("… after an edit of the code", edited_s, engine_s),
    ]


def _overhead(what: str, run_s: float, engine_s: float) -> Row:
    measured = f"D {(run_s - engine_s) * 1000:+.0f} ms = {run_s / engine_s:.2f} D ({run_s * 1000:.0f} ms)"
    return Row(what, measured, "≤ D + 150 ms, ≤ 2 D", run_s <= engine_s + _MORE_S and run_s <= 2 * engine_s)


def burst(bench: Bench) -> list[Row]:
    """Measure 100 runs in containers, two at a time, compared with 100 containers of the engine alone."""
    alone_s = seconds(lambda: _engine_burst(bench)) / _BURST
    numbers = [bench.client.runs.cast(RunSpec(command="true")).number for _ in range(_BURST)]
    runs = [bench.ended(number) for number in numbers]
    took_s = (max(run.ended_at or 0 for run in runs) - runs[0].created_at) / _BURST
    _await_machine(bench)
    label = f"label=spell.home={bench.home.root}"
    left = subprocess.run(["docker", "ps", "-aq", "--filter", label], check=True, capture_output=True, text=True)
    complete = sum(run.state == "complete" for run in runs)
    return [
        Row(
            f"{_BURST} containers in a burst, two at a time, each",
            f"{took_s * 1000:.0f} ms; the engine alone {alone_s * 1000:.0f} ms",
            "≤ engine + 150 ms, ≤ 2 ×",
            took_s <= alone_s + _MORE_S and took_s <= 2 * alone_s,
        ),
        Row("… complete", f"{complete}", f"{_BURST}", complete == _BURST),
        Row(
            "… containers left when the machine is free again",
            f"{len(left.stdout.split())}",
            "0",
            not left.stdout.split(),
        ),
    ]


def _await_machine(bench: Bench) -> None:
    """Wait until all machines are free: shortly after a run's end, when the engine has removed its container."""
    whole = {item.name: item.free_now for item in bench.client.machines.list()}
    deadline = time.monotonic() + _FREE_LIMIT_S
    while whole["cpu"] < _AT_ONCE and time.monotonic() < deadline:
        whole = {item.name: item.free_now for item in bench.client.machines.list()}


def _engine_burst(bench: Bench) -> None:
    words = f"seq {_BURST} | xargs -P {_AT_ONCE} -I{{}} docker run --rm {IMAGE} true"
    subprocess.run(["sh", "-c", words], cwd=bench.repo, check=True, capture_output=True)


def environments(bench: Bench) -> list[Row]:
    """Measure an environment of torch and transformers with packages in uv's cache, and the same set as an image layer."""
    torch = os.environ.get("TORCH", "torch")
    _building_s(bench, (torch, *_PACKAGES))
    new_s = statistics.median(_building_s(bench, (torch, *_PACKAGES, more)) for more in ("six", "idna", "toml"))
    known_s = _building_s(bench, (torch, *_PACKAGES, "six"))
    layer_s = _layer_s(bench, (torch, *_PACKAGES, "six"))
    what = f"environment of a container with {torch} and transformers, packages in uv's cache"
    return [
        Row(what, f"{new_s:.2f} s", "≤ 3 s", new_s <= 3),
        Row("… known key", f"{known_s * 1000:.0f} ms", "", holds=True),
        Row("… the same packages as an image layer", f"{layer_s:.1f} s ({layer_s / new_s:.0f} ×)", "", holds=True),
    ]


def _building_s(bench: Bench, packages: tuple[str, ...]) -> float:
    run = bench.run(RunSpec(command="true", pip=packages))
    assert run.state == "complete", run.message
    at = {event.state: event.at for event in bench.client.runs.events(str(run.number))}
    return at["running"] - at["building"]


def _layer_s(bench: Bench, packages: tuple[str, ...]) -> float:
    """Return how long the engine takes to make a layer of an existing environment."""
    run = bench.run(RunSpec(command="true", pip=packages))
    folder = Path(tempfile.mkdtemp(prefix="spell-bench-layer-"))
    try:
        (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY environment /opt/environment\n")
        environment = bench.home.environment(run.environment or "")
        subprocess.run(["cp", "-al", str(environment), str(folder / "environment")], check=True)
        words = ["docker", "build", "--no-cache", "-qt", "spell-bench:layer", str(folder)]
        took_s = seconds(lambda: subprocess.run(words, check=True, capture_output=True))
        subprocess.run(["docker", "rmi", "-f", "spell-bench:layer"], check=True, capture_output=True)
        return took_s
    finally:
        shutil.rmtree(folder)
