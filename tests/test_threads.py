"""A run uses the cores that it was given: it is held to them, and libraries start as many threads."""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Spell
from engines import TEST_IMAGE, engine_api

from orchestrator import machine
from orchestrator.lifecycle.threads import ALWAYS, DIVIDED, variables

CORES = sorted(os.sched_getaffinity(0))
CONFIG = f"""
pass_env = ["POLARS_*"]
[machine_types.half]
cpus = 0.5
[machine_types.one]
cpus = 1
[machine_types.all]
cpus = {machine.detect().cpus}
"""
TELL = 'python3 -c "import json, os; print(json.dumps([sorted(os.sched_getaffinity(0)), dict(os.environ)]))"'
BOTH = ["process", pytest.param("docker", marks=pytest.mark.engine)]
needs_two = pytest.mark.skipif(len(CORES) < 2, reason="there is one core")


@pytest.fixture(scope="module", params=BOTH)
def home(request: pytest.FixtureRequest, make_shared: Callable[..., Spell]) -> Spell:
    """A home that all tests of an executor share, whose server has a variable of its own."""
    docker = request.param == "docker"
    made = make_shared(request.param, config=CONFIG, docker=docker, POLARS_MAX_THREADS="5")
    assert made("server", "start").code == 0
    return made


@pytest.fixture
def one_home(make_spell: Callable[..., Spell]) -> Spell:
    return make_spell(config=CONFIG)


def tells(spell: Spell, **fields: Any) -> tuple[list[int], dict[str, str]]:
    """The cores that a run may use, and its variables."""
    run = spell.run(TELL, **fields)
    assert run.state == "complete", run
    cores, env = json.loads(spell.log(run.number))
    return cores, env


def ours(env: dict[str, str]) -> dict[str, str]:
    return {name: env[name] for name in (*ALWAYS, *DIVIDED) if name in env}


# -- the table ------------------------------------------------------------------------------------------------------


def test_one_core_is_one_thread_everywhere() -> None:
    assert variables(1, (), is_held=True) == dict.fromkeys((*ALWAYS, *DIVIDED), "1")


def test_launchers_of_many_processes_divide_the_cores() -> None:
    """joblib and torchrun set these for their workers only where they are not set."""
    assert variables(8, (), is_held=True) == dict.fromkeys(ALWAYS, "8")
    assert variables(8, (), is_held=False) == dict.fromkeys((*ALWAYS, *DIVIDED), "8")


@pytest.mark.parametrize("name", [*ALWAYS, *DIVIDED])
def test_what_is_set_is_not_set_again(name: str) -> None:
    assert name not in variables(1, {name}, is_held=True)


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "NUMEXPR_NUM_THREADS"])
def test_numexpr_is_not_contradicted(name: str) -> None:
    """It says "nthreads cannot be larger than …" to a number above its maximum."""
    assert "NUMEXPR_MAX_THREADS" not in variables(1, {name}, is_held=True)


# -- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine_type", ["half", "one"])
def test_a_run_has_its_core_and_a_thread_for_it(home: Spell, machine_type: str) -> None:
    cores, env = tells(home, machine_type=machine_type)
    assert len(cores) == 1
    assert cores[0] in CORES
    assert ours(env) == dict.fromkeys((*ALWAYS, *DIVIDED), "1") | {"POLARS_MAX_THREADS": "5"}


@needs_two
def test_a_run_has_all_cores(home: Spell) -> None:
    cores, env = tells(home, machine_type="all")
    assert cores == CORES
    assert ours(env) == dict.fromkeys(ALWAYS, str(len(CORES))) | {"POLARS_MAX_THREADS": "5"}


def test_what_the_person_sets_holds(home: Spell) -> None:
    asked = {"OMP_NUM_THREADS": "7", "GOMAXPROCS": "", "POLARS_MAX_THREADS": "3"}
    _, env = tells(home, machine_type="one", env=asked)
    assert {name: env.get(name) for name in asked} == asked
    assert "NUMEXPR_MAX_THREADS" not in env
    assert env["RAYON_NUM_THREADS"] == "1"


@pytest.mark.parametrize("home", BOTH[1:], indirect=True)
def test_what_the_image_sets_holds(home: Spell) -> None:
    tag = f"spell-test-threads:{uuid.uuid4().hex}"
    text = f"FROM {TEST_IMAGE}\nENV OMP_NUM_THREADS=3 COLOUR=green\n"
    list(engine_api().build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True))
    try:
        number = home.cast(f"{TELL}; sleep 1000", machine_type="one", image=tag)
        home.says(number, b"}]\n")
        cores, env = json.loads(home.log(number))
        beside = home("exec", str(number), TELL).json()
        home.client.runs.kill(str(number))
        home.ended(number)
    finally:
        engine_api().remove_image(tag, force=True)
    assert (env["OMP_NUM_THREADS"], env["COLOUR"], env["RAYON_NUM_THREADS"]) == ("3", "green", "1")
    assert "NUMEXPR_MAX_THREADS" not in env
    assert beside[0] == cores, "a command beside it is held to its cores"
    assert ours(beside[1]) == ours(env)


@needs_two
def test_runs_side_by_side_have_different_cores_also_after_a_restart(one_home: Spell) -> None:
    command = f"{TELL}; sleep 1000"

    def begin() -> tuple[int, list[int]]:
        number = one_home.cast(command, machine_type="one")
        one_home.says(number, b"}]\n")
        return number, json.loads(one_home.log(number))[0]

    begun = [begin() for _ in CORES]
    assert sorted(core for _, cores in begun for core in cores) == CORES
    one_home.kill_server()
    number, freed = begun[0]
    one_home.client.runs.kill(str(number))
    one_home.ended(number)
    assert begin()[1] == freed
