"""What this machine has, as far as its server may use it, and which of its cores a run gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from engines import TEST_IMAGE, engine_api, need_engine

import orchestrator
from orchestrator.machine import CoreLoad, CoreUse, whole_cores

CHECKOUT = Path(orchestrator.__file__).parents[1]
CORES = sorted(os.sched_getaffinity(0))
TELL = """
import json
from orchestrator import machine
from orchestrator.config import Config
found = machine.detect()
print(json.dumps([found.cpus, found.cores, Config().types()["cpu"].cpus]))
"""


@pytest.mark.parametrize(("cpus", "whole"), [(0.01, 1), (0.5, 1), (1, 1), (1.2, 2), (2, 2), (0.1 * 3 * 10, 3)])
def test_a_part_of_a_core_is_a_core(cpus: float, whole: int) -> None:
    assert whole_cores(cpus) == whole


def test_each_run_gets_the_cores_that_are_used_least() -> None:
    load = CoreLoad((2, 3, 5, 7))
    given = []
    for cpus in (1, 0.5, 2, 0.5, 1, 1.5):
        given.append(load.least_used(cpus))
        load.give(cpus, given[-1])
    assert given == [(2,), (3,), (5, 7), (3,), (2,), (3, 5)]
    assert load.least_used(4) == load.least_used(9) == (2, 3, 5, 7)


def test_of_equal_cores_a_run_gets_the_one_that_was_less_busy() -> None:
    load = CoreLoad((0, 1, 2), {0: 0.9, 1: 0.1, 2: 0.5})
    assert load.least_used(1) == (1,)
    load.give(1, (1,))
    assert load.least_used(2) == (0, 2)


def test_a_busy_core_is_seen() -> None:
    use, core = CoreUse(), max(os.sched_getaffinity(0))
    began = time.thread_time()
    os.sched_setaffinity(threading.get_native_id(), [core])
    try:
        while (used_s := time.thread_time() - began) < 0.1:
            pass
    finally:
        os.sched_setaffinity(threading.get_native_id(), CORES)
    assert use.lately()[core] >= used_s - 0.05  # the kernel counts ticks of 10 ms


def test_cores_that_this_machine_no_longer_has_count_nothing() -> None:
    load = CoreLoad((0, 1))
    load.give(8, (0, 6))
    load.give(1, (1,))
    assert load.least_used(1) == (1,)
    assert CoreLoad(()).least_used(1) == ()


def test_a_server_that_is_held_to_one_core_has_one_core() -> None:
    core = max(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{core}]); {TELL.strip()}".replace("\n", "; ")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert json.loads(done.stdout) == [1, [core], 1]


@pytest.mark.engine
@pytest.mark.parametrize("cpus", [0.5, 1])
def test_a_server_in_a_container_has_the_cores_of_its_quota(cpus: float) -> None:
    need_engine()
    api = engine_api()
    packages = str(Path(psutil.__file__).parents[1])
    container = api.create_container(
        TEST_IMAGE,
        ["python3", "-c", TELL],
        environment={"PYTHONPATH": f"{CHECKOUT}:{packages}", "PYTHONDONTWRITEBYTECODE": "1"},
        host_config=api.create_host_config(
            nano_cpus=int(cpus * 1e9), binds=[f"{place}:{place}:ro" for place in (CHECKOUT, packages)]
        ),
    )
    try:
        api.start(container)
        api.wait(container)
        said = api.logs(container)
    finally:
        api.remove_container(container, force=True)
    usable, cores, type_cpu = json.loads(said)
    assert (usable, type_cpu) == (cpus, 1)
    assert cores == CORES, "a quota says how much, not which"
