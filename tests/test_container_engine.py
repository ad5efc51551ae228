"""The Docker engine fails: it cannot remove or give what is asked, hangs, or is started again.

The server speaks to the engine through a socket of ours, on which requests can be held, lost and refused.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Spell, wait_for
from containers import EngineProxy, config, none_left
from engines import TEST_IMAGE, containers_of, need_engine
from servers import serving
from test_recovery import PROMPT_S, assert_free

from orchestrator.client import Client
from orchestrator.config import DockerConfig
from orchestrator.engine import Engine
from orchestrator.environments import Images
from orchestrator.errors import ExecutorFailed
from orchestrator.executors.docker import DockerExecutor
from orchestrator.home import Home
from orchestrator.machine import Capacity
from orchestrator.spec import RunSpec

START = "POST .*/containers/spell-[0-9a-f]{8}-[^/]*/start"
CREATE = r"POST .*/containers/create\?name=spell-[0-9a-f]{8}-"
REMOVE = "DELETE .*/containers/spell-[0-9a-f]{8}-"
AT_ONCE_S = 3.0


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProxy]:
    proxy = EngineProxy(tmp_path_factory.mktemp("engine") / "engine.sock")
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def shared(
    proxy: EngineProxy, make_shared: Callable[..., Spell], tmp_path_factory: pytest.TempPathFactory
) -> Spell:
    return make_shared("engine", config=config(tmp_path_factory.getbasetemp(), proxy.host))


@pytest.fixture
def spell(shared: Spell) -> Iterator[Spell]:
    """A home that the tests of this module share; each leaves it without active runs and containers."""
    yield shared
    shared.clear()
    none_left(shared)


def free_now(spell: Spell, name: str) -> int:
    return {item.name: item.free_now for item in spell.client.machine_types()}[name]


def notices(spell: Spell, number: int) -> list[str]:
    return [event.text for event in spell.client.events(str(number)) if event.kind == "notice"]


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_ONCE_S


# -- F9: what cannot be removed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["up", "killed"])
@pytest.mark.parametrize("how", ["refuse", "hold"])
def test_f09_machine_is_held_until_the_container_is_gone(
    spell: Spell, proxy: EngineProxy, how: str, server: str
) -> None:
    with proxy.rule(how, REMOVE) as rule:
        number = spell.cast("true", machine_type="whole")
        assert rule.came.wait(PROMPT_S)
        assert spell.ended(number, PROMPT_S).state == "complete"
        assert free_now(spell, "whole") == 0
        wait_for(lambda: notices(spell, number), "a notice")
        assert notices(spell, number)[0].startswith("Its machine is not free yet: ")
        if server == "killed":
            spell.kill_server()
            assert spell.client.run(str(number)).state == "complete"
            assert free_now(spell, "whole") == 0
        waiting = spell.cast("true", machine_type="whole")
        assert spell.client.run(str(waiting)).state == "machine_requested"
        assert len(containers_of(spell.home)) == 1
    assert spell.ended(waiting).state == "complete"
    wait_for(lambda: free_now(spell, "whole") == 1, "the machine is free")


def test_f09_a_start_that_failed_holds_its_machine_too(spell: Spell, proxy: EngineProxy) -> None:
    with proxy.rule("refuse", START, times=1), proxy.rule("refuse", REMOVE):
        number = spell.cast("true", machine_type="whole")
        run = spell.ended(number, PROMPT_S)
        assert (run.state, run.reason) == ("failed", "executor_failed")
        assert "it does not work" in run.message
        assert free_now(spell, "whole") == 0
        assert len(containers_of(spell.home)) == 1
    wait_for(lambda: free_now(spell, "whole") == 1, "the machine is free")
    none_left(spell)


# -- F10: the engine hangs ------------------------------------------------------------------------------------------


def test_f10_a_hung_engine_blocks_nobody(spell: Spell, proxy: EngineProxy) -> None:
    number = spell.cast("trap 'exit 3' TERM; echo up; while :; do sleep 0.02; done")
    spell.says(number, b"up")
    with proxy.rule("hold", ".*"):
        for words in (["ps"], ["info", str(number)], ["machine-types"], ["logs", str(number)]):
            with at_once():
                assert spell(*words).code == 0
        other = spell.cast("echo up; sleep 1000", executor="process")
        spell.says(other, b"up")
        wait_for(lambda: spell.client.samples(str(other)), "samples of the other run")
        with at_once(), contextlib.suppress(ExecutorFailed):
            spell.cast("true")
        with at_once():
            assert spell.client.stop(str(number)) == "running"
        with at_once():
            assert spell.client.kill(str(other)) == "running"
        assert spell.ended(other, PROMPT_S).state == "killed"
    run = spell.ended(number)
    assert (run.state, run.exit_code) == ("stopped", 3)


def test_f10_a_server_starts_and_ends_beside_a_hung_engine(spell: Spell, proxy: EngineProxy) -> None:
    number = spell.cast("echo up; sleep 1000")
    spell.says(number, b"up")
    with proxy.rule("hold", ".*"):
        spell.kill_server()
        with at_once():
            assert spell.client.run(str(number)).state == "running"
        assert spell.run("true", executor="process").state == "complete"
        began = time.monotonic()
        assert spell("server", "stop").code == 0
        assert time.monotonic() - began < PROMPT_S
    spell.client.kill(str(number))
    assert spell.ended(number, PROMPT_S).state == "killed"
    assert_free(spell)


# -- F18: GPUs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_gpus(proxy: EngineProxy, tmp_path: Path) -> Iterator[Client]:
    """A server in this process, on a machine that has two GPUs, with an engine that cannot give them."""
    need_engine()
    home = Home(tmp_path / "home")
    docker = DockerConfig(base_image=TEST_IMAGE, gpu_base_image=TEST_IMAGE)
    engine = Engine(home, proxy.host)
    executor = DockerExecutor(engine, Images(engine, docker), docker)
    proxy.asked.clear()
    with serving(home.root, {"docker": executor}, Capacity(4, 1 << 34, (0, 1))) as client:
        yield client
    wait_for(lambda: not containers_of(home), "no container")


def created(proxy: EngineProxy) -> dict[str, dict]:
    """What the engine was asked to make, by the run's number."""
    found = [json.loads(body) for line, body in list(proxy.asked) if line.startswith("POST") and "name=spell-" in line]
    return {words["Labels"]["spell.run"]: words for words in found if "spell.run" in words["Labels"]}


def test_f18_no_two_runs_get_one_gpu(two_gpus: Client, proxy: EngineProxy) -> None:
    with proxy.rule("hold", START):
        numbers = [two_gpus.cast(RunSpec(command="true", machine_type="gpu")).number for _ in range(3)]
        wait_for(lambda: len(created(proxy)) == 2, "two containers")
        assert two_gpus.run(str(numbers[2])).state == "machine_requested"
        wanted = [words["HostConfig"]["DeviceRequests"] for words in created(proxy).values()]
        assert sorted(requests[0]["DeviceIDs"] for requests in wanted) == [["0"], ["1"]]
        assert {name for (request,) in wanted for name in request["Capabilities"][0]} == {"gpu", "compute", "utility"}
        assert all(not any("NVIDIA" in item for item in words["Env"] or ()) for words in created(proxy).values())
    for number in numbers:
        run = two_gpus.wait(str(number), PROMPT_S)
        assert (run.state, run.reason) == ("failed", "executor_failed")
        assert "cannot give GPUs to containers" in run.message and "spell doctor" in run.message
    wait_for(lambda: two_gpus.machine_types()[1].free_now == 2, "both GPUs are free")


def test_f18_a_run_without_gpus_sees_none(two_gpus: Client, proxy: EngineProxy, tmp_path: Path) -> None:
    number = two_gpus.cast(RunSpec(command='echo "[$NVIDIA_VISIBLE_DEVICES] [$CUDA_VISIBLE_DEVICES]"')).number
    assert two_gpus.wait(str(number), PROMPT_S).state == "complete"
    assert not created(proxy)[str(number)]["HostConfig"].get("DeviceRequests")
    assert Home(tmp_path / "home").log(number).read_text() == "[void] []\n"
