"""Runs in containers come to the right end whatever dies, hangs or is removed beside them. A real engine, real kills.

The server speaks to the engine through a socket of ours, on which requests can be held, lost and refused.
"""

from __future__ import annotations

import base64
import io
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Spell, bearing, wait_for
from containers import (
    EngineProxy,
    config,
    container_of,
    image_with_apt,
    none_left,
    reaper_of,
    remove_images,
)
from engines import TEST_IMAGE, containers_of, engine_api
from test_recovery import (
    MANY_OUTPUTS,
    PROMPT_S,
    REASON_AFTER,
    STATE_AFTER,
    Gate,
    Tally,
    assert_completed_once,
    assert_free,
    assert_legal,
    caught,
    kill_again_and_again,
    request_stop,
)
from wheels import SlowProject

from orchestrator.errors import Conflict
from orchestrator.executors.docker import files
from orchestrator.states import FINAL

pytestmark = pytest.mark.engine

START = "POST .*/containers/spell-[0-9a-f]{8}-[^/]*/start"
CREATE = r"POST .*/containers/create\?name=spell-[0-9a-f]{8}-"
REMOVE = "DELETE .*/containers/spell-[0-9a-f]{8}-"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProxy]:
    proxy = EngineProxy(tmp_path_factory.mktemp("engine") / "engine.sock")
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def shared(
    proxy: EngineProxy, make_shared: Callable[..., Spell], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Spell]:
    spell = make_shared("containers", config=config(tmp_path_factory.getbasetemp(), proxy.host))
    yield spell
    remove_images(spell)


@pytest.fixture
def spell(shared: Spell) -> Iterator[Spell]:
    """A home that the tests of this module share; each leaves it without active runs and containers."""
    yield shared
    shared.clear()
    none_left(shared)


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture(scope="module")
def hanging() -> Iterator[str]:
    """An image whose Python does not come to load a reaper."""
    real, python = "/usr/bin/python3.real", "/usr/bin/python3"
    script = f'#!/bin/sh\ncase "$*" in *supervisor*) exec sleep 1000;; esac\nexec {real} "$@"\n'
    encoded = base64.b64encode(script.encode()).decode()
    text = f"FROM {TEST_IMAGE}\nRUN mv {python} {real} && echo {encoded} | base64 -d > {python} && chmod 755 {python}"
    tag = f"spell-test-hanging:{secrets.token_hex(8)}"
    said = list(engine_api().build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True, decode=True))
    assert "error" not in said[-1], said[-1]
    yield tag
    engine_api().remove_image(tag, force=True)


@pytest.fixture
def slow(shared: Spell) -> SlowProject:
    """A project whose build waits, where the container of the build can see it."""
    shared.client.server.get()
    return SlowProject(shared.home.environments / ".containers" / secrets.token_hex(4))


def free_now(spell: Spell, name: str) -> int:
    return {item.name: item.free_now for item in spell.client.machines.list()}[name]


# -- F1: the server is killed ---------------------------------------------------------------------------------------


def test_f01_killed_while_queued(spell: Spell, tally: Tally, gate: Gate) -> None:
    blocker = spell.cast(gate.command, machine_type="whole")
    spell.reaches(blocker, "running")
    queued = [spell.cast(tally.command(str(index))) for index in range(3)]
    spell.kill_server()
    gate.open()
    assert spell.ended(blocker).state == "complete"
    for index, number in enumerate(queued):
        assert_completed_once(spell, number, tally, str(index))


def test_f01_killed_while_its_image_is_built(spell: Spell, tally: Tally) -> None:
    with image_with_apt("echo installing; sleep 1") as image:
        number = spell.cast(tally.command(), image=image, apt=("tree",))
        log = spell.home.build_log(number)
        wait_for(lambda: log.exists() and "installing\n" in log.read_text(), "the build")
        spell.kill_server()
        assert assert_completed_once(spell, number, tally).attempt == 2
        remove_images(spell)


def test_f01_killed_while_its_environment_is_built(spell: Spell, tally: Tally, slow: SlowProject) -> None:
    number = spell.cast(f"{tally.command()}; python -c 'import slow'", pip=(str(slow.path),))
    wait_for(slow.started, "a build")
    (first,) = containers_of(spell.home)
    spell.kill_server()
    assert spell.client.runs.get(str(number)).state not in FINAL
    wait_for(lambda: len(slow.started()) == 2, "the second build")
    wait_for(lambda: first["Id"] not in {item["Id"] for item in containers_of(spell.home)}, "the end of the first")
    slow.go()
    assert assert_completed_once(spell, number, tally).attempt == 2


@pytest.mark.parametrize("moment", [START, CREATE], ids=["start", "create"])
def test_f01_killed_before_the_engine_has_started_it(
    spell: Spell, proxy: EngineProxy, tally: Tally, moment: str
) -> None:
    """What the engine was asked reaches it when a later attempt has ended: the first one must never run."""
    with proxy.rule("hold", moment, times=1) as rule:
        number = spell.cast(tally.command())
        assert rule.came.wait(PROMPT_S)
        spell.kill_server()
        assert assert_completed_once(spell, number, tally).attempt == 2
    wait_for(lambda: tally.counts["x"] == 1 and spell.run("true").state == "complete", "another run")
    spell("gc")  # a container that was made so late is nobody's
    assert tally.counts == {"x": 1}


def test_f01_killed_after_the_engine_has_started_it(spell: Spell, proxy: EngineProxy, tally: Tally, gate: Gate) -> None:
    """The engine's answer was lost with the server; the reaper has the request, so it is this attempt that runs."""
    with proxy.rule("lose", START, times=1):
        number = spell.cast(f"{tally.command()}; {gate.command}")
        wait_for(lambda: tally.counts["x"], "the command")
        spell.kill_server()
        gate.open()
        assert assert_completed_once(spell, number, tally).attempt == 1


def test_f01_an_answer_that_is_lost_changes_nothing(spell: Spell, proxy: EngineProxy, tally: Tally, gate: Gate) -> None:
    with proxy.rule("lose", START, times=1):
        number = spell.cast(f"{tally.command()}; {gate.command}")
        wait_for(lambda: tally.counts["x"], "the command")
    gate.open()
    assert assert_completed_once(spell, number, tally).attempt == 1


def test_f01_killed_while_running(spell: Spell, tally: Tally, gate: Gate) -> None:
    number = spell.cast(f"{tally.command()}; echo before; {gate.command}; echo after; echo out > out.txt")
    spell.says(number, b"before")
    spell.reaches(number, "running")
    spell.kill_server()
    assert spell.client.runs.get(str(number)).state == "running"
    spell.kill_server()
    gate.open()
    assert assert_completed_once(spell, number, tally).attempt == 1
    assert spell.log(number) == b"before\nafter\n"
    assert (spell.home.run_dir(number) / "out.txt").read_text() == "out\n"


def test_f01_killed_while_outputs_are_saved(spell: Spell, tally: Tally) -> None:
    def cast() -> int:
        tally.path.unlink(missing_ok=True)
        return spell.cast(f"{tally.command()} && {MANY_OUTPUTS}")

    with caught(spell, "saving", cast) as number:
        spell.kill_server()
    assert assert_completed_once(spell, number, tally).outputs_count == 4000


def test_f01_killed_again_and_again_in_a_burst(spell: Spell, tally: Tally, gate: Gate) -> None:
    kill_again_and_again(spell, tally, gate, runs=12, pause_s=0.2)
    wait_for(lambda: not any(spell.home.work.iterdir()), "no work dir")
    assert_free(spell)


# -- F2: the command ends while the server is down ------------------------------------------------------------------


@pytest.mark.parametrize("removed", [False, True], ids=["stays", "removed"])
def test_f02_command_ends_while_the_server_is_down(spell: Spell, gate: Gate, removed: bool) -> None:
    number = spell.cast(f"echo before; {gate.command}; echo out > out.txt; printf after; exit 3")
    spell.says(number, b"before")
    container = container_of(spell, number)
    spell.kill_server()
    gate.open()
    wait_for(lambda: files.read(spell.home.attempt_dir(number, 1) / "result"), "the result")
    ended_before = time.time()
    if removed:
        engine_api().remove_container(container, force=True)
    wait_for(lambda: time.time() > ended_before + 0.2, "a later time")
    run = spell.ended(number)
    assert (run.state, run.exit_code, run.signal, run.reason) == ("failed", 3, None, "exited_nonzero")
    assert run.started_at and run.ended_at and run.duration_s
    assert run.started_at <= run.ended_at <= ended_before
    assert run.duration_s == pytest.approx(run.ended_at - run.started_at, abs=0.5)
    assert spell.log(number) == b"before\nafter"
    assert (spell.home.run_dir(number) / "out.txt").read_text() == "out\n"


# -- F3, F4: the reaper is killed, the container removed ------------------------------------------------------------


def _kill_reaper(container: str) -> None:
    reaper_of(container).kill()


def _kill_shim(container: str) -> None:
    shim = reaper_of(container).parent()
    assert shim is not None and "shim" in shim.name()
    shim.kill()


VIOLENCE: dict[str, tuple[Callable[[str], object], str]] = {
    "reaper": (_kill_reaper, "supervisor_lost"),
    "shim": (_kill_shim, "supervisor_lost"),
    "docker kill": (lambda container: engine_api().kill(container), "supervisor_lost"),
    "docker rm": (lambda container: engine_api().remove_container(container, force=True), "container_lost"),
}


@pytest.mark.parametrize(
    ("name", "server"), [("reaper", "up"), ("reaper", "down"), ("shim", "up"), ("shim", "down"), ("docker kill", "up")]
)
def test_f03_reaper_is_killed(spell: Spell, token: str, name: str, server: str) -> None:
    _suffers(spell, token, name, server)


@pytest.mark.parametrize("server", ["up", "down"])
def test_f04_container_is_removed(spell: Spell, token: str, server: str) -> None:
    _suffers(spell, token, "docker rm", server)


def _suffers(spell: Spell, token: str, name: str, server: str) -> None:
    """A run whose container meets with violence ends soon, keeps what it had, and gives back its machine."""
    hurt, reason = VIOLENCE[name]
    number = spell.cast(f"setsid sleep {token} & echo out > out.txt; echo said; wait")
    spell.says(number, b"said")
    container = container_of(spell, number)
    if server == "down":
        spell.kill_server()
    hurt(container)
    run = spell.ended(number, PROMPT_S)
    assert (run.state, run.reason) == ("failed", reason)
    assert run.message and not run.message.endswith(": ")
    assert run.ended_at is not None
    wait_for(lambda: not bearing(token), "the end of all processes", PROMPT_S)
    assert spell.log(number) == b"said\n"
    assert (spell.home.run_dir(number) / "out.txt").read_text() == "out\n"
    assert_free(spell)
    assert not list(spell.home.attempt_dir(number, 1).glob("*.tmp"))


# -- F6: stop and kill in each phase --------------------------------------------------------------------------------


def test_f06_while_queued(spell: Spell, tally: Tally, gate: Gate) -> None:
    blocker = spell.cast(gate.command, machine_type="whole")
    spell.reaches(blocker, "running")
    number = spell.cast(tally.command())
    assert request_stop(spell, number, "stop") == "killed"
    with pytest.raises(Conflict, match="already finished"):
        request_stop(spell, number, "stop")
    gate.open()
    assert spell.ended(blocker).state == "complete"
    assert tally.counts == {}


@pytest.mark.parametrize("word", ["stop", "kill"])
def test_f06_while_its_image_is_built(spell: Spell, tally: Tally, token: str, word: str) -> None:
    with image_with_apt(f"exec sleep {token}") as image:
        number = spell.cast(tally.command(), image=image, apt=("tree",), machine_type="whole")
        wait_for(lambda: "sleep" in {psutil.Process(pid).name() for pid in bearing(token)}, "the build hangs")
        _ends_by(spell, number, word, tally)
        wait_for(lambda: not bearing(token), "the end of the build")


@pytest.mark.parametrize("word", ["stop", "kill"])
def test_f06_while_its_environment_is_built(spell: Spell, tally: Tally, slow: SlowProject, word: str) -> None:
    number = spell.cast(tally.command(), pip=(str(slow.path),), machine_type="whole")
    wait_for(slow.started, "a build")
    _ends_by(spell, number, word, tally)


def _ends_by(spell: Spell, number: int, word: str, tally: Tally) -> None:
    assert request_stop(spell, number, word) == "building"
    run = spell.ended(number, PROMPT_S)
    assert (run.state, run.reason) == (STATE_AFTER[word], REASON_AFTER[word])
    none_left(spell)
    assert_free(spell)
    assert tally.counts == {}
    assert_legal(spell, number)


@pytest.mark.parametrize("word", ["stop", "kill"])
def test_f06_while_starting(spell: Spell, proxy: EngineProxy, word: str) -> None:
    with proxy.rule("hold", START, times=1) as rule:
        number = spell.cast("trap 'exit 3' TERM; while :; do sleep 0.02; done", machine_type="whole")
        assert rule.came.wait(PROMPT_S)
        asked = time.monotonic()
        request_stop(spell, number, word)
        assert time.monotonic() - asked < 2
    run = spell.ended(number, PROMPT_S)
    assert (run.state, run.reason) == (STATE_AFTER[word], REASON_AFTER[word])
    assert_free(spell)
    assert_legal(spell, number)


@pytest.mark.parametrize("word", ["stop", "kill"])
def test_f06_while_a_reaper_does_not_start(spell: Spell, hanging: str, word: str) -> None:
    number = spell.cast("true", image=hanging, machine_type="whole")
    wait_for(lambda: containers_of(spell.home, status=["running"], name=[f"-{number}-a1-"]), "its container")
    request_stop(spell, number, word)
    run = spell.ended(number, PROMPT_S)
    assert (run.state, run.reason) == (STATE_AFTER[word], REASON_AFTER[word])
    assert_free(spell)
    assert_legal(spell, number)


@pytest.mark.parametrize("word", ["stop", "kill"])
def test_f06_while_running(spell: Spell, word: str) -> None:
    number = spell.cast("echo out > out.txt; trap 'echo bye; exit' TERM; echo up; while :; do sleep 0.02; done")
    spell.says(number, b"up")
    spell.reaches(number, "running")
    assert request_stop(spell, number, word) == "running"
    run = spell.ended(number, PROMPT_S)
    assert (run.state, run.reason) == (STATE_AFTER[word], REASON_AFTER[word])
    assert (b"bye\n" in spell.log(number)) == (word == "stop")
    assert (spell.home.run_dir(number) / "out.txt").exists() == (word == "stop")
    assert_free(spell)


def test_f06_kill_while_saving(spell: Spell) -> None:
    with caught(spell, "saving", lambda: spell.cast(MANY_OUTPUTS)) as number:
        asking = threading.Thread(target=request_stop, args=(spell, number, "kill"))
        asking.start()
    asking.join()
    run = spell.ended(number)
    assert (run.state, run.reason, run.outputs_count) == ("killed", "kill_requested", 0)
    assert_free(spell)


def test_f06_stop_while_the_server_is_down(spell: Spell, gate: Gate) -> None:
    number = spell.cast(f"echo up; {gate.command}")
    spell.says(number, b"up")
    spell.kill_server()
    assert spell("stop", str(number)).code == 0
    assert spell.ended(number, PROMPT_S).state == "stopped"
