"""The Docker engine fails: it cannot remove or give what is asked, hangs, or is started again.

The server speaks to the engine through a socket of ours, on which requests can be held, lost and refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from conftest import DEADLINE_S, Spell, wait_for
from containers import EngineProxy, config, none_left
from engines import TEST_IMAGE, containers_of, engine_api, go_without, need_engine
from requests import Response
from servers import serving
from test_recovery import PROMPT_S, assert_free

from orchestrator.client.client import Client
from orchestrator.config import DockerConfig
from orchestrator.engine import Engine, find
from orchestrator.errors import ExecutorFailed
from orchestrator.executors.docker.executor import DockerExecutor
from orchestrator.home import Home
from orchestrator.images.images import Images
from orchestrator.machine import Capacity
from orchestrator.spec.run import RunSpec

pytestmark = pytest.mark.engine

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
def shared(proxy: EngineProxy, make_shared: Callable[..., Spell], tmp_path_factory: pytest.TempPathFactory) -> Spell:
    return make_shared("engine", config=config(tmp_path_factory.getbasetemp(), proxy.host))


@pytest.fixture
def spell(shared: Spell) -> Iterator[Spell]:
    """A home that the tests of this module share; each leaves it without active runs and containers."""
    yield shared
    shared.clear()
    none_left(shared)


def free_now(spell: Spell, name: str) -> int:
    return {item.name: item.free_now for item in spell.client.machines.list()}[name]


def notices(spell: Spell, number: int) -> list[str]:
    return [event.text for event in spell.client.runs.events(str(number)) if event.kind == "notice"]


def cast_or_none(spell: Spell, command: str) -> int | None:
    """Its number; None while the executor can run nothing."""
    with contextlib.suppress(ExecutorFailed):
        return spell.cast(command)
    return None


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_ONCE_S


# -- F9: what cannot be removed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "server"), [("refuse", "up"), ("refuse", "killed"), ("hold", "killed")])
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
            assert spell.client.runs.get(str(number)).state == "complete"
            assert free_now(spell, "whole") == 0
        waiting = spell.cast("true", machine_type="whole")
        assert spell.client.runs.get(str(waiting)).state == "machine_requested"
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
    spell.reaches(number, "running")
    with proxy.rule("hold", ".*"):
        for words in (["ps"], ["info", str(number)], ["machine-types"], ["logs", str(number)]):
            with at_once():
                assert spell(*words).code == 0
        other = spell.cast("echo up; sleep 1000", executor="process")
        spell.says(other, b"up")
        spell.reaches(other, "running")
        wait_for(lambda: spell.client.stats.samples(str(other)), "samples of the other run")
        with at_once(), contextlib.suppress(ExecutorFailed):
            spell.cast("true")
        with at_once():
            assert spell.client.runs.stop(str(number)) == "running"
        with at_once():
            assert spell.client.runs.kill(str(other)) == "running"
        assert spell.ended(other, PROMPT_S).state == "killed"
    run = spell.ended(number)
    assert (run.state, run.exit_code) == ("stopped", 3)
    again = wait_for(lambda: cast_or_none(spell, "true"), "containers again")
    assert spell.ended(again).state == "complete"


def test_f10_a_server_starts_and_ends_beside_a_hung_engine(spell: Spell, proxy: EngineProxy) -> None:
    number = spell.cast("echo up; sleep 1000")
    spell.says(number, b"up")
    spell.reaches(number, "running")
    with proxy.rule("hold", ".*"):
        spell.kill_server()
        with at_once():
            assert spell.client.runs.get(str(number)).state == "running"
        assert spell.run("true", executor="process").state == "complete"
        began = time.monotonic()
        assert spell("server", "stop").code == 0
        assert time.monotonic() - began < PROMPT_S
    spell.client.runs.kill(str(number))
    assert spell.ended(number, PROMPT_S).state == "killed"
    assert_free(spell)


# -- what the doctor finds --------------------------------------------------------------------------------------------


def test_the_doctor_starts_a_container(spell: Spell, proxy: EngineProxy) -> None:
    assert "\n✓ container   a container started and ended in " in spell("doctor").out
    with proxy.rule("refuse", r"POST .*/containers/create\?name=spell-build-"):
        done = spell("doctor")
    assert (done.code, "\n✗ container   no container can be started: it does not work\n" in done.out) == (1, True), done


def test_f09_a_container_that_ends_while_it_is_killed_is_removed_at_once(tmp_path: Path) -> None:
    class Api:
        asked = 0

        def remove_container(self, name: str, **_options: object) -> None:
            self.asked += 1
            if self.asked == 1:
                words = f"Could not kill running container {name}, cannot remove - Container {name} is not running"
                raise docker.errors.APIError("", response=Response(), explanation=words)

    engine = Engine(Home(tmp_path))
    engine.__dict__["api"] = api = Api()
    engine.remove("7a")
    assert api.asked == 2


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
        numbers = [two_gpus.runs.cast(RunSpec(command="true", machine_type="gpu")).number for _ in range(3)]
        wait_for(lambda: len(created(proxy)) == 2, "two containers")
        assert two_gpus.runs.get(str(numbers[2])).state == "machine_requested"
        wanted = [words["HostConfig"]["DeviceRequests"] for words in created(proxy).values()]
        assert sorted(requests[0]["DeviceIDs"] for requests in wanted) == [["0"], ["1"]]
        assert all(words["HostConfig"]["Init"] is False for words in created(proxy).values()), "the reaper is"
        assert {name for (request,) in wanted for name in request["Capabilities"][0]} == {"gpu", "compute", "utility"}
        assert all(not any("NVIDIA" in item for item in words["Env"] or ()) for words in created(proxy).values())
    for number in numbers:
        run = two_gpus.runs.wait(str(number), PROMPT_S)
        assert (run.state, run.reason) == ("failed", "executor_failed")
        assert "cannot give GPUs to containers" in run.message and "spell doctor" in run.message
    wait_for(lambda: two_gpus.machines.list()[1].free_now == 2, "both GPUs are free")


def without_gpus(_line: str, body: bytes) -> bytes:
    """What podman 4.3.1 makes of a request for GPUs."""
    words = json.loads(body) if body.startswith(b"{") else {}
    if "DeviceRequests" not in words.get("HostConfig", {}):
        return body
    del words["HostConfig"]["DeviceRequests"]
    return json.dumps(words).encode()


def test_f18_a_run_that_the_engine_gives_no_gpus_is_not_started(two_gpus: Client, proxy: EngineProxy) -> None:
    proxy.change = without_gpus
    number = two_gpus.runs.cast(RunSpec(command="echo on the CPU", machine_type="gpu")).number
    run = two_gpus.runs.wait(str(number), PROMPT_S)
    assert (run.state, run.reason) == ("failed", "executor_failed")
    assert "1 GPU asked for, but none seen" in run.message
    assert "podman" in run.message and "spell doctor" in run.message
    assert two_gpus.logs.get(str(number)).read() == b""


def test_capabilities_of_the_driver_that_are_given_are_asked_of_the_engine(
    two_gpus: Client, proxy: EngineProxy
) -> None:
    env = {"NVIDIA_DRIVER_CAPABILITIES": "compute,video"}
    number = two_gpus.runs.cast(RunSpec(command="true", machine_type="gpu", env=env)).number
    two_gpus.runs.wait(str(number), PROMPT_S)
    (request,) = created(proxy)[str(number)]["HostConfig"]["DeviceRequests"]
    assert request["Capabilities"] == [["gpu", "compute", "video", "utility"]]


def test_f18_a_run_without_gpus_sees_none(two_gpus: Client, proxy: EngineProxy, tmp_path: Path) -> None:
    number = two_gpus.runs.cast(RunSpec(command='echo "[$NVIDIA_VISIBLE_DEVICES] [$CUDA_VISIBLE_DEVICES]"')).number
    assert two_gpus.runs.wait(str(number), PROMPT_S).state == "complete"
    assert not created(proxy)[str(number)]["HostConfig"].get("DeviceRequests")
    assert Home(tmp_path / "home").log(number).read_text() == "[void] []\n"


# -- the engine is started again ------------------------------------------------------------------------------------

NETWORK = ("spelltest0", "10.213.77.1/24")
LEFT_OUT = "proc sys dev var usr/share usr/lib/git-core usr/lib/*/perl*".split()


class OwnEngine:
    """A dockerd of the test's own, with a small copy of the test image."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, f"unix://{folder}/sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        places = [f"--{name}={self.folder / name}" for name in ("data-root", "exec-root", "pidfile")]
        network = [f"--bridge={NETWORK[0]}", "--iptables=false", "--ip-masq=false", "--ip-forward=false"]
        with (self.folder / "log").open("ab") as log:
            command = ["dockerd", "-H", self.host, *places, *network]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_for(lambda: find.answers(self.host), "the engine")

    def end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(DEADLINE_S)
        for left in ("pidfile", "exec-root/containerd/containerd.pid"):  # it would wait for that process
            (self.folder / left).unlink(missing_ok=True)

    def take_image(self) -> None:
        skipped = [f"--exclude=./{path}" for path in LEFT_OUT]
        with subprocess.Popen(
            ["docker", "run", "--rm", "--network=none", TEST_IMAGE, "tar", "-c", *skipped, "-C", "/", "."],
            stdout=subprocess.PIPE,
        ) as tree:
            subprocess.run(["docker", "-H", self.host, "import", "-", TEST_IMAGE], stdin=tree.stdout, check=True)


@pytest.fixture
def own_engine() -> Iterator[OwnEngine]:
    need_engine()
    if os.getuid() != 0 or not shutil.which("dockerd") or not shutil.which("docker"):
        go_without("no engine can be started here")
    if subprocess.run(["ip", "link", "add", NETWORK[0], "type", "bridge"], check=False).returncode:
        go_without("no network can be made here")
    folder = Path(tempfile.mkdtemp(prefix="spell-engine-"))  # its sockets need a short path
    engine = OwnEngine(folder)
    try:
        subprocess.run(["ip", "addr", "add", NETWORK[1], "dev", NETWORK[0]], check=True)
        subprocess.run(["ip", "link", "set", NETWORK[0], "up"], check=True)
        engine.start()
        engine.take_image()
        yield engine
        engine.end(signal.SIGTERM)
    finally:
        subprocess.run(["ip", "link", "del", NETWORK[0]], check=True)
        subprocess.run(["umount", "--lazy", folder / "data-root"], capture_output=True, check=False)
        shutil.rmtree(folder)


def test_f03_engine_is_started_again(own_engine: OwnEngine, make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    spell = make_spell(config=config(tmp_path, own_engine.host))
    for how in (signal.SIGKILL, signal.SIGTERM):
        number = spell.cast("echo out > out.txt; echo up; while :; do sleep 0.02; done")
        spell.says(number, b"up")
        own_engine.end(how)
        assert spell("ps").code == 0
        own_engine.start()
        run = spell.ended(number)
        assert (run.state, run.reason, run.signal) == ("failed", "signalled", signal.SIGTERM)  # so an engine ends them
        assert (spell.home.run_dir(number) / "out.txt").read_text() == "out\n"
        assert_free(spell)
    spell.end()


# -- casting --------------------------------------------------------------------------------------------------------


def test_a_cast_that_fails_leaves_no_run(proxy: EngineProxy, make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    spell = make_spell(config=config(tmp_path, proxy.host))
    with proxy.rule("refuse", "GET .*/info"):
        done = spell("run", "--force", "-t", "small", "true")
        assert done.code == 1, done
    assert spell.client.runs.list() == []


def test_an_engine_that_is_named_and_away_is_not_passed_over(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config='# any executor = of this machine\n[docker]\nhost = "unix:///there/is/none"\n')
    done = spell("run", "--force", "echo on the host")
    assert done.code == 1, done
    assert "No Docker engine answers at unix:///there/is/none" in done.err and "--executor process" in done.err
    assert spell("run", "--force", "--executor", "process", "true").code == 0


def test_an_exec_needs_no_image_by_name(docker_spell: Spell, tmp_path: Path) -> None:
    """The image of a run may be called something else by now, or nothing."""
    spell, tag = docker_spell, f"spell-test-renamed:{os.getpid()}"
    engine_api().tag(TEST_IMAGE, *tag.split(":"))
    number = spell.cast("echo up; sleep 1000", image=tag)
    spell.says(number, b"up")
    engine_api().remove_image(tag)
    done = spell("exec", str(number), "echo", "inside")
    assert (done.code, done.out) == (0, "inside\n"), done


def test_started_at_is_told_while_it_runs(docker_spell: Spell) -> None:
    number = docker_spell.cast("echo up; sleep 1000")
    docker_spell.says(number, b"up")
    docker_spell.reaches(number, "running")
    run = docker_spell.client.runs.get(str(number))
    assert run.started_at is not None and run.started_at >= run.created_at


def test_what_a_run_put_beside_its_files_goes_with_it(docker_spell: Spell) -> None:
    run = docker_spell.run("echo secret > /opt/spell/inside/kept")
    assert run.state == "complete"
    inside = docker_spell.home.attempt_dir(run.number, 1) / "inside"
    wait_for(lambda: not inside.exists(), "the folder that it was shown is gone")
