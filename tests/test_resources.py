"""Cores, memory and GPUs by word: what fits, who gets what, what is refused and what is waited for. The GPUs are made up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Spell, wait_for
from servers import serving

from orchestrator.client.client import Client
from orchestrator.config import Config, MachineTypeConfig
from orchestrator.errors import ImpossibleRequest, InvalidConfig
from orchestrator.executors.fake import FakeExecutor
from orchestrator.lifecycle.waiting import waiting
from orchestrator.machine import Capacity, Gpu, usable_cpus
from orchestrator.spec.run import RunSpec
from orchestrator.spec.sizes import size_bytes, size_text
from orchestrator.store import MachineRequest

pytestmark = pytest.mark.server
GIB = 1 << 30
MIB = 1 << 20
T4, A100, BIG, RTX = (
    Gpu(0, "Tesla T4", 15_360 * MIB),
    Gpu(1, "NVIDIA A100-SXM4-40GB", 40_960 * MIB),
    Gpu(2, "NVIDIA H100 80GB HBM3", 81_559 * MIB),
    Gpu(3, "NVIDIA GeForce RTX 4090", 24_564 * MIB),
)
MACHINE = Capacity(cpus=16, memory_bytes=64 * GIB, gpus=(0, 1, 2, 3), kinds=(T4, A100, BIG, RTX))


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Client]:
    """A server on `MACHINE` whose executor runs nothing."""
    with serving(tmp_path / "fake", {"fake": FakeExecutor()}, MACHINE, "[machine_types.cpu]\ncpus = 1\n") as client:
        yield client


@pytest.mark.parametrize(
    ("text", "base", "size"),
    [
        ("32G", 1024, 32 * GIB), ("32gb", 1024, 32 * GIB), ("1.5TiB", 1024, 1536 * GIB), ("512 M", 1024, 512 * MIB), ("7", 1024, 7),
        ("40G", 1000, 40 * 10**9), ("40GB", 1000, 40 * 10**9), ("40GiB", 1000, 40 * GIB),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(text: str, base: int, size: int) -> None:
    assert size_bytes(text, base) == size
    assert size_bytes(size_text(size, base), base) == size
    for wrong in ("", "G", "-1G", "1e9", "4 gigs", "40G B"):
        with pytest.raises(InvalidConfig, match="is not a size"):
            size_bytes(wrong, base)


@pytest.mark.parametrize(
    ("names", "fitting"),
    [
        ("a100", [A100]), ("A100-40GB", [A100]), ("a10", []), ("h100, A100", [A100, BIG]), ("rtx4090", [RTX]), ("RTX 4090", [RTX]),
        ("rtx-4090", [RTX]), ("4090", [RTX]), ("nvidia", [A100, BIG, RTX]), ("t4,", [T4]), ("a100-80gb", []), ("gpu", []),
    ],
)  # fmt: skip
def test_names_of_gpus(names: str, fitting: list[Gpu]) -> None:
    assert [gpu for gpu in MACHINE.kinds if gpu.fits(names, 0)] == fitting


def test_memory_of_gpus_as_makers_state_it() -> None:
    """A driver tells 79.6 GiB for 80 GB, and 15 GiB for 16 GB."""
    fitting = {
        size: len(MACHINE.suitable("", size_bytes(size, 1000)))
        for size in ("16G", "24G", "40G", "80G", "81920MiB", "96G")
    }
    assert fitting == {"16G": 4, "24G": 3, "40G": 2, "80G": 1, "81920MiB": 1, "96G": 0}
    assert MACHINE.suitable("", 0) == (0, 3, 1, 2), "the smallest first"
    assert Capacity(1, 1, (5,)).suitable("", 0) == (5,) and Capacity(1, 1, (5,)).suitable("a100", 0) == ()


def test_what_is_asked_for_by_word_wins_over_the_machine_type() -> None:
    config = Config(
        machine_types={
            "cpu": MachineTypeConfig(1, 2),
            "gpu": MachineTypeConfig(0.5, gpus=1),
            "pair": MachineTypeConfig(1, 4, 2),
        }
    )

    def has(**fields: object) -> tuple[object, ...]:
        found = config.machine_for(RunSpec("true", **fields))  # type: ignore[arg-type]
        return found.name, found.cpus, (found.memory_bytes or 0) / GIB, found.gpus

    assert has() == ("cpu", 1, 2, 0)
    assert has(cpus=3.5, memory_bytes=GIB) == ("cpu", 3.5, 1, 0)
    assert has(gpus=1) == has(gpu_type="a100") == has(gpu_memory_bytes=10**10) == ("gpu", 0.5, 0, 1)
    assert has(gpus=3) == ("gpu", min(1.5, usable_cpus()), 0, 3)
    assert has(machine_type="pair", gpu_type="a100") == ("pair", 1, 4, 2)
    assert has(machine_type="pair", gpus=0) == ("pair", 1, 4, 0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cpus": 99.0}, "it asks for 99 cores; this machine has 16"),
        ({"memory_bytes": 65 * GIB}, "it asks for 65.0 GiB of memory; this machine has 64.0 GiB"),
        ({"gpus": 5}, "it asks for 5 GPUs; this machine has 4"),
        (
            {"gpus": 2, "gpu_type": "t4"},
            "it asks for 2 GPUs of type t4; this machine has Tesla T4 (16.1G), NVIDIA A100",
        ),
        (
            {"gpu_type": "l4,l40s", "gpu_memory_bytes": 10**11},
            "it asks for 1 GPU of type l4 or l40s with 100G; this machine has",
        ),
    ],
)
def test_what_this_machine_can_never_give_is_refused(fake: Client, fields: dict[str, object], said: str) -> None:
    with pytest.raises(ImpossibleRequest) as caught:
        fake.runs.cast(RunSpec("true", **fields))  # type: ignore[arg-type]
    assert caught.value.message.startswith(f"This run can never start here: {said}")
    assert fake.runs.list() == []


def test_a_run_gets_gpus_that_fit_and_waits_for_no_others(fake: Client) -> None:
    def cast(command: str, **fields: object) -> str:
        return str(fake.runs.cast(RunSpec(command, **fields)).number)  # type: ignore[arg-type]

    def gpus(number: str) -> list[int]:
        return wait_for(lambda: fake.runs.get(number).gpus, f"GPUs of run {number}")

    big = cast("hang", gpu_memory_bytes=80 * 10**9, cpus=0.5, memory_bytes=2 * GIB)
    assert (gpus(big), gpus(cast("hang", gpus=1))) == ([2], [0])
    waits = cast("hang", gpu_type="a100,h100", gpus=2)
    passes = cast("hang", gpu_type="rtx4090")
    assert gpus(passes) == [3]
    for number, words in (
        (waits, "2 GPUs of type a100 or h100, which run 1 holds"),
        (cast("exit 0", gpus=1), "run 3, which is before it"),
    ):
        assert fake.runs.get(number).waits_for.startswith(words)
        assert fake.runs.get(number).state == "machine_requested"
    assert fake.runs.get(big).spec["memory_bytes"] == 2 * GIB and fake.runs.get(big).machine_type == "gpu"
    fake.runs.stop(big)
    assert sorted(gpus(waits)) == [1, 2]


def test_reuse_compares_kinds_of_gpus(fake: Client) -> None:
    first = fake.runs.cast(RunSpec("exit 0", gpus=1, gpu_type="a100")).number
    plain = fake.runs.cast(RunSpec("exit 0", gpus=1)).number
    for number in (first, plain):
        wait_for(lambda number=number: fake.runs.get(number).state == "complete", f"run {number}")

    def reused(**fields: Any) -> int | None:
        return fake.runs.plan(RunSpec("exit 0", gpus=1, **fields), reuse=True).reused

    assert (reused(gpu_type="a100"), reused()) == (first, plain)
    assert reused(gpu_type="h100") is None and reused(gpu_memory_bytes=10**10) is None
    assert reused(gpu_type="a100", gpu_memory_bytes=10**10) is None


def test_the_words_of_waiting_for_memory_and_kinds() -> None:
    holding = [MachineRequest(1, 0, None, 1, 0, 1, (2,), ()), MachineRequest(2, 0, None, 1, 0, 1, (0,), ())]
    queue = [MachineRequest(3, 0, None, 1, 0, 1, (), (), "", 80 * 10**9)]
    assert waiting(MACHINE, holding, iter(queue), (), {3}) == {3: "1 GPU with 80G, which run 1 holds; 1st in the queue"}


def test_options_and_info(spell: Spell) -> None:
    done = spell("run", "--cpus", "0.5", "--memory", "64M", "true")
    assert done.code == 0 and "reserves the memory that the run asks for, but cannot limit a run to it" in done.err
    assert "Resources     0.5 cores, 64M of memory\n" in spell("info", "latest").out
    done = spell("run", "--gpus", "64", "--gpu-type", "a100", "--gpu-memory", "40G", "true")
    assert (done.code, "This run can never start here: it asks for 64 GPUs; this machine has" in done.err) == (3, True)
    for words, said in ((["--memory", "lots"], "'lots' is not a size"), (["--gpus", "0", "--gpu-type", "x"], "A run without GPUs"),
                        (["--cpus", "nan"], "A run can ask for 0.01 to 9999 cores"), (["--memory", "32"], "Give a unit: --memory 32G")):  # fmt: skip
        done = spell("run", *words, "true")
        assert (done.code, said in done.err) == (3, True), done
