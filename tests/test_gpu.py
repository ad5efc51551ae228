"""On a machine with an NVIDIA GPU: it is found, handed out, measured, and the jokes are trained on it.

$GPU_PYTHON is a Python with transformers and a torch for that GPU; by default the one that runs the tests. Without a GPU,
or without such a Python, all of this is skipped.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Spell, wait_for
from test_jobs import JOKES, read_metric, run_script

from orchestrator import machine
from orchestrator.records.runs import RunRecord

PYTHON = os.environ.get("GPU_PYTHON", sys.executable)
COUNT = len(machine.detect().gpus)
WARM_UP_S = 120.0  # torch takes its time to load, the first time

pytestmark = pytest.mark.skipif(not COUNT, reason="no GPU is here")

SEEN = "import torch; print('GPUs:', torch.cuda.device_count())"
BUSY = """
import time, torch
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
held = torch.empty(2 << 30, device="cuda", dtype=torch.uint8)
torch.cuda.synchronize(); print("works", flush=True)
while True:
    for _ in range(20): a @ a
    torch.cuda.synchronize()
"""


@pytest.fixture(scope="module")
def python() -> str:
    code = "import torch, transformers; assert torch.cuda.is_available()"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{PYTHON} has no torch that finds the GPU: {done.stderr.strip()[-200:]}")
    return PYTHON


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    return make_shared("gpu")


@pytest.fixture
def spell(shared: Spell) -> Any:
    yield shared
    shared.clear()


def said(spell: Spell, code: str, python: str, machine_type: str) -> tuple[RunRecord, str]:
    number = spell.cast(f"{shlex.quote(python)} -c {shlex.quote(code)}", machine_type=machine_type)
    return spell.ended(number, WARM_UP_S), spell.log(number).decode()


def busy(spell: Spell, python: str) -> int:
    number = spell.cast(f"{shlex.quote(python)} -c {shlex.quote(BUSY)}", machine_type="gpu")
    wait_for(lambda: b"works\n" in spell.log(number), "the GPU works", WARM_UP_S)
    return number


# -- found and handed out -------------------------------------------------------------------------------------------


def test_doctor_names_the_gpus(spell: Spell) -> None:
    words = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    listed = subprocess.run(words, check=True, capture_output=True, text=True)
    names = listed.stdout.split("\n")[:COUNT]
    found = {item["name"]: item for item in spell("doctor", "--json").json()}["gpu"]
    assert found["status"] == "ok"
    assert f"{names.count(names[0])} x {names[0]}" in found["text"]
    kinds = {item["name"]: item for item in spell("machine-types", "--json").json()}
    assert (kinds["gpu"]["gpus"], kinds["gpu"]["possible"]) == (1, True)


def test_a_run_sees_the_gpus_that_it_was_given(spell: Spell, python: str) -> None:
    for machine_type, count in (("gpu", 1), ("cpu", 0)):
        run, log = said(spell, SEEN, python, machine_type)
        assert (run.state, log) == ("complete", f"GPUs: {count}\n")


def test_who_finds_all_gpus_taken_waits(spell: Spell, python: str) -> None:
    holders = [busy(spell, python) for _ in range(COUNT)]
    assert sorted(itertools.chain.from_iterable(spell.client.runs.get(str(number)).gpus for number in holders)) == [
        *range(COUNT)
    ]
    waiting = spell.cast(f"{shlex.quote(python)} -c {shlex.quote(SEEN)}", machine_type="gpu")
    assert spell.client.runs.get(str(waiting)).state == "machine_requested"
    assert spell.run("true").state == "complete"  # nobody else waits
    spell.client.runs.kill(str(holders[0]))
    assert spell.ended(waiting, WARM_UP_S).state == "complete"
    assert spell.log(waiting) == b"GPUs: 1\n"


# -- measured -------------------------------------------------------------------------------------------------------


def test_what_a_run_takes_of_its_gpu_is_measured(spell: Spell, python: str) -> None:
    number = busy(spell, python)

    def full() -> dict[str, float] | None:
        found = [gpu for sample in spell.client.stats.samples(str(number)) for gpu in sample.gpus]
        return next((gpu for gpu in found if gpu["utilization_percent"] > 50), None)

    gpu = wait_for(full, "a sample of a GPU at work")
    assert gpu["index"] == 0
    assert (2 << 30) < gpu["memory_used_bytes"] < gpu["memory_total_bytes"]
    assert gpu["power_w"] > 1
    assert 0 < gpu["temperature_c"] < 120
    shown = spell("stats", str(number)).out
    assert re.search(r"(?i)gpu", shown), shown
    spell.client.runs.stop(str(number))
    spell.ended(number)
    wait_for(lambda: machine.gpu_samples([0])[0]["memory_used_bytes"] < gpu["memory_used_bytes"], "its memory is free")


def test_a_killed_run_gives_its_gpu_back(spell: Spell, python: str) -> None:
    number = busy(spell, python)
    spell.kill_server()
    assert spell.client.runs.get(str(number)).state == "running"
    spell.client.runs.kill(str(number))
    assert spell.ended(number).state == "killed"
    run, log = said(spell, SEEN, python, "gpu")
    assert (run.state, log) == ("complete", "GPUs: 1\n")


# -- the jokes ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/ and data.txt."""
    folder = tmp_path_factory.mktemp("start")
    for script, words in (("download.py", ["--smoke"]), ("base.py", ["--smoke", "--output", "base"])):
        result = run_script(script, *words, cwd=folder, python=python)
        assert result.returncode == 0, result.stderr
    return folder


def finetune(start: Path, cwd: Path, python: str, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["--model", str(start / "base"), "--data", str(start / "data.txt"), "--smoke", *more]
    env = {"SPELL_METRICS": str(cwd / "metrics.jsonl"), "CUDA_VISIBLE_DEVICES": "0"}
    result = run_script("finetune.py", *words, cwd=cwd, python=python, **env)
    assert result.returncode == 0, result.stderr
    assert "On cuda" in result.stdout
    return result


def test_jokes_are_learned_on_the_gpu(spell: Spell, python: str, start: Path) -> None:
    """As a run: bf16, SDPA and the fused optimizer, and generating with what it left."""
    files = f"--model {start}/base --data {start}/data.txt --smoke"
    number = spell.cast(f"{shlex.quote(python)} {JOKES}/finetune.py {files}", machine_type="gpu")
    assert spell.ended(number, WARM_UP_S).state == "complete", spell.log(number)
    assert "On cuda" in spell.log(number).decode()
    perplexity = {item.step: item.value for item in spell.client.metrics.list(str(number), "held_out_perplexity")}
    assert perplexity[60] < perplexity[0] / 2
    words = f"--model {spell.home.root}/runs/{number}/model --smoke"
    number = spell.cast(f"{shlex.quote(python)} {JOKES}/generate.py {words}", machine_type="gpu")
    assert spell.ended(number, WARM_UP_S).state == "complete", spell.log(number)
    assert len((spell.home.root / "runs" / str(number) / "jokes.txt").read_text().splitlines()) == 4


def test_resume_on_the_gpu_gives_the_same_bits(python: str, start: Path, tmp_path: Path) -> None:
    steps = ["--steps", "10", "--checkpoint-every", "5"]
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    for folder in (straight, resumed):
        folder.mkdir()
    finetune(start, straight, python, *steps)
    result = finetune(start, resumed, python, *steps, "--resume", str(straight / "checkpoints" / "step-000005"))
    assert "Resumed from" in result.stdout
    losses = read_metric(straight / "metrics.jsonl", "loss")
    assert list(losses) == list(range(1, 11))
    assert read_metric(resumed / "metrics.jsonl", "loss") == {step: losses[step] for step in range(6, 11)}
    weights = "model/model.safetensors"
    assert (resumed / weights).read_bytes() == (straight / weights).read_bytes()
