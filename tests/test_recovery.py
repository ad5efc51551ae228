"""Runs come to the right end whatever dies, is stopped or hangs beside them. Real servers, real processes, real kills.

Each test is named after the failure mode that it is about. A command that counts its executions appends a line to a
file outside of the home; a command that shall wait does so for a file that the test makes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import secrets
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest
from conftest import Spell, wait_for
from engines import containers_of, engine_api
from launches import make_launch
from servers import python, serving
from test_disk_full import small_disk
from wheels import SlowProject

from orchestrator import machine
from orchestrator.content.manifest import FILE, Entry, Manifest
from orchestrator.content.manifest import make as make_manifest
from orchestrator.errors import Conflict, StaleFence
from orchestrator.executors.base import Handle, Launch
from orchestrator.executors.fake import FakeExecutor
from orchestrator.executors.process import ProcessExecutor
from orchestrator.records.runs import RunRecord
from orchestrator.spec.filters import Filter
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import Code, RunSpec, to_wire
from orchestrator.states import ENDS, FINAL, MOVES, State, StopRequest
from orchestrator.store import NewRun, Store
from orchestrator.store.database import Database

CORES = machine.detect().cpus
CONFIG = f"""
sample_interval_s = 0.05
grace_s = 1

[machine_types.cpu]
cpus = {CORES / 20}

[machine_types.whole]
cpus = {CORES}
"""
PROMPT_S = 10.0
"""What "at once" may take on a machine that is busy with other things."""
TRIES = 20


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    return make_shared("recovery", config=CONFIG)


@pytest.fixture
def spell(shared: Spell) -> Iterator[Spell]:
    """A home that the tests of this module share; each leaves it without active runs."""
    yield shared
    shared.clear()


class Tally:
    """Counts the executions of commands."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, word: str = "x") -> str:
        """Shell words that count one execution of `word`."""
        return f"echo {word} >> {self.path}"

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.path.read_text().split()) if self.path.exists() else Counter()


@dataclass
class Gate:
    """A command waits at it until the test opens it."""

    path: Path

    @property
    def command(self) -> str:
        return f"until [ -e {self.path} ]; do sleep 0.02; done"

    def open(self) -> None:
        self.path.touch()


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def assert_legal(spell: Spell, number: int) -> None:
    """The run's states followed each other as the table allows, and it ended once."""
    states = [State(event.state) for event in spell.client.runs.events(str(number)) if event.kind == "state"]
    assert states[0] == State.MACHINE_REQUESTED
    for current, to in pairwise(states):
        assert to in MOVES[current], states
    assert [state for state in states if state in FINAL] == states[-1:]


def assert_completed_once(spell: Spell, number: int, tally: Tally, word: str = "x") -> RunRecord:
    run = spell.ended(number)
    assert (run.state, run.exit_code, run.reason) == ("complete", 0, "exited_zero"), run
    assert tally.counts[word] == 1
    assert_legal(spell, number)
    return run


def assert_free(spell: Spell) -> None:
    """All of the machine can be had again."""
    assert spell.run("true", machine_type="whole").state == "complete"


@contextlib.contextmanager
def caught(spell: Spell, state: str, cast: Callable[[], int]) -> Iterator[int]:
    """Cast runs until the server could be frozen while one is in this passing state; that one's number."""
    later = list(State)[list(State).index(State(state)) :]
    for _ in range(TRIES):
        number = cast()
        wait_for(lambda number=number: spell.stored(number)[0] in later, f"run {number} {state}")
        with spell.frozen():
            if spell.stored(number)[0] == state:
                yield number
                return
        assert spell.ended(number).state == "complete"
    pytest.fail(f"no run was seen {state}")


def supervisor_of(spell: Spell, number: int) -> psutil.Process:
    claim = json.loads((spell.home.attempt_dir(number, 1) / "claim.json").read_text())
    return psutil.Process(claim["pid"])


def reaper_of(supervisor: psutil.Process) -> psutil.Process:
    (reaper,) = supervisor.children()
    return reaper


def wait_gone(process: psutil.Process) -> None:
    """Wait until it has ended, reaped or not: whoever adopts orphans here may be slow."""

    def gone() -> bool:
        try:
            return process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_for(gone, f"the end of {process}")


def bearing(mark: str) -> list[psutil.Process]:
    """All processes whose command line says `mark`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and any(mark in word for word in process.cmdline()):
                found.append(process)
    return found


def name_of(process: psutil.Process) -> str:
    """Its name; "" when it has just ended."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def verdict_of(spell: Spell, number: int) -> Path:
    return spell.home.attempt_dir(number, 1) / "verdict.json"


def many_mounts(spell: Spell) -> tuple[Mount, ...]:
    """So many that mounting takes a while."""
    source = spell.run("echo data > data.txt").number
    return tuple(Mount(f"runs/{source}/data.txt", f"inputs/{index}") for index in range(400))


MANY_OUTPUTS = "mkfifo pipe && mkdir many && cd many && seq 4000 | xargs touch"


# -- F1: the server is killed ---------------------------------------------------------------------------------------


def test_f01_killed_while_queued(spell: Spell, tally: Tally, gate: Gate) -> None:
    blocker = spell.cast(gate.command, machine_type="whole")
    spell.reaches(blocker, "running")
    queued = [spell.cast(tally.command(str(index))) for index in range(5)]
    spell.kill_server()
    gate.open()
    assert spell.ended(blocker).state == "complete"
    for index, number in enumerate(queued):
        assert_completed_once(spell, number, tally, str(index))


def test_f01_killed_while_building(spell: Spell, tally: Tally, tmp_path: Path) -> None:
    project = SlowProject(tmp_path)
    number = spell.cast(f"{tally.command()}; python -c 'import slow'", pip=(str(project.path),))
    (pid,) = wait_for(project.started, "a build")
    first = psutil.Process(pid)
    spell.kill_server()
    assert spell.client.runs.get(str(number)).state not in FINAL
    wait_for(lambda: len(project.started()) == 2, "the second build")
    wait_gone(first)
    project.go()
    assert assert_completed_once(spell, number, tally).attempt == 2


def test_f01_killed_before_anything_was_made(spell: Spell, tally: Tally) -> None:
    """The server can die between the claim and the first folder of the attempt."""
    spell.client.server.get()
    spell.kill_server()
    with spell.opened_store() as store:
        number = store.add(NewRun(RunSpec(command=tally.command()), "process", 0.1, None, 0))
        assert store.claim(number, []) is not None
    assert assert_completed_once(spell, number, tally).attempt == 2


def test_f01_killed_while_mounting(spell: Spell, tmp_path: Path) -> None:
    mounts, tallies = many_mounts(spell), {}

    def cast() -> int:
        tally = Tally(tmp_path / secrets.token_hex(8))
        number = spell.cast(f"{tally.command()} && cat inputs/* > all.txt", mounts=mounts)
        tallies[number] = tally
        return number

    with caught(spell, "mounting", cast):
        spell.kill_server()
    for number, tally in tallies.items():
        assert_completed_once(spell, number, tally)
        assert (spell.home.run_dir(number) / "all.txt").read_text() == "data\n" * len(mounts)


@pytest.mark.parametrize("moment", ["saving", "pushing"])
def test_f01_killed_while_outputs_are_saved(spell: Spell, tmp_path: Path, moment: str) -> None:
    tallies = {}

    def cast() -> int:
        tally = Tally(tmp_path / secrets.token_hex(8))
        number = spell.cast(f"{tally.command()} && {MANY_OUTPUTS}")
        tallies[number] = tally
        return number

    with caught(spell, moment, cast):
        spell.kill_server()
    for number, tally in tallies.items():
        run = assert_completed_once(spell, number, tally)
        assert run.outputs_count == 4000
        assert sum(1 for _ in (spell.home.run_dir(number) / "many").iterdir()) == 4000
        notes = {item.path: item.note for item in spell.client.runs.artifacts(str(number)) if item.note}
        assert notes == {"pipe": "a named pipe, not a file"}


def test_f01_killed_while_a_file_is_copied(spell: Spell) -> None:
    """Files with two names are copied when they are saved. A half copy is never taken for the file."""
    size = 200 << 20
    number = spell.cast(f"yes | head -c {size} > big; ln big twin")
    copies = [spell.home.work_dir(number) / name for name in ("outputs.copying", "outputs/big")]
    wait_for(lambda: any(path.exists() for path in copies) or spell.home.run_dir(number).exists(), "a copy")
    spell.kill_server()
    run = spell.ended(number)
    assert (run.state, run.outputs_count, run.outputs_bytes) == ("complete", 2, 2 * size)
    assert {path.name: path.stat().st_size for path in spell.home.run_dir(number).iterdir()} == {
        "big": size,
        "twin": size,
    }


def test_f01_killed_while_running(spell: Spell, tally: Tally, gate: Gate) -> None:
    number = spell.cast(f"{tally.command()}; echo before; {gate.command}; echo after; echo out > out.txt")
    spell.says(number, b"before")
    spell.reaches(number, "running")
    spell.kill_server()
    assert spell.client.runs.get(str(number)).state == "running"
    spell.kill_server()
    gate.open()
    run = assert_completed_once(spell, number, tally)
    assert run.attempt == 1
    assert spell.log(number) == b"before\nafter\n"
    assert (spell.home.run_dir(number) / "out.txt").read_text() == "out\n"


def kill_again_and_again(spell: Spell, tally: Tally, gate: Gate, runs: int, pause_s: float) -> None:
    """Kill the server at random moments, each after a random number of further events of so many short runs."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    blocker = spell.cast(gate.command, machine_type="whole")
    spell.reaches(blocker, "running")
    numbers = [spell.cast(f"{tally.command(str(index))}; echo {index} > out.txt") for index in range(runs)]

    def events() -> int:
        with contextlib.closing(sqlite3.connect(f"file:{spell.home.database}?mode=ro", uri=True)) as store:
            return int(store.execute("SELECT count(*) FROM events").fetchone()[0])

    before = events()
    gate.open()
    for threshold in sorted(chance.sample(range(1, 5 * runs), 8)):
        spell.client.server.get()
        wait_for(lambda limit=before + threshold: events() >= limit, f"{threshold} events")
        time.sleep(chance.uniform(0, pause_s))
        spell.kill_server()
    for index, number in enumerate(numbers):
        assert_completed_once(spell, number, tally, str(index))
        assert (spell.home.run_dir(number) / "out.txt").read_text() == f"{index}\n"
    assert sum(tally.counts.values()) == runs


def test_f01_killed_again_and_again_in_a_burst(spell: Spell, tally: Tally, gate: Gate) -> None:
    kill_again_and_again(spell, tally, gate, runs=20, pause_s=0.02)
    assert not any(spell.home.work.iterdir())
    assert_free(spell)


# -- F2: the command ends while the server is down ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_f02_command_ends_while_the_server_is_down(spell: Spell, gate: Gate, how: str) -> None:
    number = spell.cast(f"echo before; {gate.command}; echo out > out.txt; printf after; exit 3")
    spell.says(number, b"before")
    if how == "killed":
        spell.kill_server()
    else:
        server = psutil.Process(spell.server_pid)
        spell.client.server.stop()
        server.wait(PROMPT_S)
    gate.open()
    wait_for(verdict_of(spell, number).exists, "the verdict")
    ended_before = time.time()
    wait_for(lambda: time.time() > ended_before + 0.2, "a later time")
    run = spell.ended(number)
    assert (run.state, run.exit_code, run.signal, run.reason) == ("failed", 3, None, "exited_nonzero")
    assert run.started_at is not None
    assert run.ended_at is not None
    assert run.duration_s is not None
    assert run.started_at <= run.ended_at <= ended_before
    assert run.duration_s == pytest.approx(run.ended_at - run.started_at, abs=0.5)
    assert spell.log(number) == b"before\nafter"
    assert (spell.home.run_dir(number) / "out.txt").read_text() == "out\n"
    assert [item.path for item in spell.client.runs.artifacts(str(number))] == ["out.txt"]


# -- F3: the supervisor is killed -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["namespaces", "none"])
def isolated(request: pytest.FixtureRequest, make_shared: Callable[..., Spell]) -> Spell:
    """A home whose runs have private namespaces where the kernel lets us, and one whose runs never have them."""
    env = {"SPELL_NAMESPACES": "never"} if request.param == "none" else {}
    return make_shared(f"isolation-{request.param}", config=CONFIG, **env)


def start_server(spell: Spell) -> None:
    """As a person does, with this home's environment variables."""
    assert spell("server", "start").code == 0


@pytest.mark.parametrize(
    ("victim", "server"),
    [("supervisor", "up"), ("reaper", "up"), ("both", "up"), ("supervisor", "down"), ("both", "down")],
)
def test_f03_supervisor_is_killed(isolated: Spell, victim: str, server: str) -> None:
    spell = isolated
    start_server(spell)
    mark = f"1000.{secrets.randbelow(10**9):09}"
    sleep = f"sleep {mark}"
    brood = [f"{sleep} &", f"setsid {sleep} &", f"nohup {sleep} &", f"(setsid {sleep} & exit) &"]
    is_isolated = ProcessExecutor().isolation == "namespaces" and "none" not in spell.home.root.name
    if victim != "both" or server == "up" or is_isolated:
        brood.append(f"env -i setsid {sleep} &")  # with nobody left who knows it, it could not be found
    number = spell.cast(" ".join([*brood, "echo out > out.txt; echo said; wait"]))
    spell.says(number, b"said")
    wait_for(lambda: len([one for one in bearing(mark) if "sleep" in name_of(one)]) == len(brood), "all processes")
    supervisor = supervisor_of(spell, number)
    reaper = reaper_of(supervisor)
    if "none" in spell.home.root.name:
        assert os.readlink(f"/proc/{reaper.pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    if server == "down":
        spell.kill_server()
    if victim == "both":
        reaper.suspend()  # else it would clean up before its own end
    for process in {"supervisor": [supervisor], "reaper": [reaper], "both": [supervisor, reaper]}[victim]:
        process.kill()
    killed_at = time.monotonic()
    if server == "down":
        start_server(spell)
    run = spell.ended(number, PROMPT_S)
    assert time.monotonic() - killed_at < PROMPT_S
    assert (run.state, run.reason) == ("failed", "supervisor_lost")
    assert (run.duration_s is None) == (victim != "reaper")  # null: nobody knows
    assert run.ended_at is not None
    assert "died without a verdict: " in run.message
    assert not run.message.endswith(": ")
    wait_for(lambda: not bearing(mark), "the end of all processes", PROMPT_S)
    assert spell.log(number) == b"said\n"
    assert (spell.home.run_dir(number) / "out.txt").read_text() == "out\n"
    assert_free(spell)


def test_f03_forkserver_is_killed(spell: Spell, gate: Gate) -> None:
    """The process that supervisors come from: those that it has forked go on, and the next run gets a new one."""
    number = spell.cast(gate.command)
    spell.reaches(number, "running")
    forkservers = [one for one in psutil.Process(spell.server_pid).children() if one.cmdline()[-1:] == ["forkserver"]]
    assert len(forkservers) == 1
    forkservers[0].kill()
    assert spell.run("true").state == "complete"
    assert spell.client.runs.get(str(number)).state == "running"
    gate.open()
    assert spell.ended(number).state == "complete"


# -- F5: very short commands ----------------------------------------------------------------------------------------


def test_f05_short_commands_are_never_stuck(spell: Spell) -> None:
    numbers = {spell.cast(f"exit {code}"): code for code in [0, 1, 7] * 10}
    for number, code in numbers.items():
        run = spell.ended(number)
        assert run.exit_code == code
        assert run.state == ("failed" if code else "complete")
        assert_legal(spell, number)
        states = [event.state for event in spell.client.runs.events(str(number))]
        assert states[:3] == ["machine_requested", "building", "running"]


# -- F6: stop and kill in each phase --------------------------------------------------------------------------------


def request_stop(spell: Spell, number: int, word: str) -> str:
    return {"stop": spell.client.runs.stop, "kill": spell.client.runs.kill}[word](str(number))


def answer_to_request(spell: Spell, number: int, word: str) -> str:
    """The state that the server answers, or that it refused."""
    try:
        return request_stop(spell, number, word)
    except Conflict:
        return "refused"


STATE_AFTER = {"stop": "stopped", "kill": "killed"}
REASON_AFTER = {"stop": "stop_requested", "kill": "kill_requested"}


@pytest.mark.parametrize("word", ["stop", "kill"])
def test_f06_while_queued(spell: Spell, tally: Tally, gate: Gate, word: str) -> None:
    blocker = spell.cast(gate.command, machine_type="whole")
    spell.reaches(blocker, "running")
    number = spell.cast(tally.command())
    assert request_stop(spell, number, word) == "killed"
    run = spell.client.runs.get(str(number))
    assert (run.state, run.reason, run.duration_s) == ("killed", "kill_requested", 0.0)
    with pytest.raises(Conflict, match="already finished"):
        request_stop(spell, number, word)
    gate.open()
    assert spell.ended(blocker).state == "complete"
    assert_free(spell)
    assert tally.counts == {}


@pytest.mark.parametrize("word", ["stop", "kill"])
def test_f06_while_building(spell: Spell, tally: Tally, tmp_path: Path, word: str) -> None:
    project = SlowProject(tmp_path)
    number = spell.cast(tally.command(), pip=(str(project.path),), machine_type="whole")
    (pid,) = wait_for(project.started, "a build")
    builder = psutil.Process(pid)
    assert request_stop(spell, number, word) == "building"
    run = spell.ended(number, PROMPT_S)
    assert (run.state, run.reason) == (STATE_AFTER[word], REASON_AFTER[word])
    if word == "stop":
        assert run.message == "stopped on request; its command was not started, so there are no outputs"
    wait_gone(builder)
    assert_free(spell)
    assert tally.counts == {}
    assert_legal(spell, number)


@pytest.mark.parametrize("word", ["stop", "kill"])
def test_f06_while_mounting(spell: Spell, tally: Tally, word: str) -> None:
    mounts = many_mounts(spell)
    with caught(spell, "mounting", lambda: spell.cast(tally.command(), mounts=mounts, machine_type="whole")) as number:
        counted = sum(tally.counts.values())
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(answer_to_request(spell, number, word)))
        asking.start()
    asking.join()
    run = spell.ended(number, PROMPT_S)
    # a command that had begun by then may also have ended by itself; then the request was refused
    refused = answers == ["refused"]
    expected = ("complete", "exited_zero") if refused else (STATE_AFTER[word], REASON_AFTER[word])
    assert (run.state, run.reason) == expected, run
    assert sum(tally.counts.values()) - counted <= 1
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


@pytest.mark.parametrize("word", ["stop", "kill"])
def test_f06_while_saving(spell: Spell, word: str) -> None:
    answers: list[str] = []
    with caught(spell, "saving", lambda: spell.cast(MANY_OUTPUTS)) as number:
        asking = threading.Thread(target=lambda: answers.append(answer_to_request(spell, number, word)))
        asking.start()
    asking.join()
    run = spell.ended(number)
    # the command had ended by itself: a stop could change nothing, a kill drops what it left
    assert answers[0] in ({"stop": ("refused",), "kill": ("saving", "pushing")}[word])
    expected = {"stop": ("complete", "exited_zero", 4000), "kill": ("killed", "kill_requested", 0)}[word]
    assert (run.state, run.reason, run.outputs_count) == expected
    assert spell.home.run_dir(number).exists() == (word == "stop")
    assert_free(spell)
    assert_legal(spell, number)


def test_f06_accepted_means_done(spell: Spell) -> None:
    """Requests at random moments of short runs: each accepted one has its effect, and each other one is refused."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    numbers = [spell.cast("echo out > out.txt; sleep 0.0$((RANDOM % 10))") for _ in range(40)]
    asked: dict[int, list[tuple[str, str]]] = {number: [] for number in numbers}

    def ask(number: int, words: list[str], after_s: float) -> None:
        spell.reaches(number, *(set(State) - {State.MACHINE_REQUESTED}))
        time.sleep(after_s)
        asked[number].extend((word, answer_to_request(spell, number, word)) for word in words)

    with ThreadPoolExecutor(len(numbers)) as pool:
        for number in numbers:
            words = chance.choice([["stop"], ["kill"], ["stop", "kill"], ["kill", "stop"]])
            pool.submit(ask, number, words, chance.uniform(0, 0.15))
    for number in numbers:
        run, accepted = spell.ended(number), [word for word, answer in asked[number] if answer != "refused"]
        expected = STATE_AFTER["kill" if "kill" in accepted else "stop"] if accepted else "complete"
        assert run.state == expected, (run, asked[number])
        assert spell.home.run_dir(number).exists() == (run.state != "killed" and run.outputs_count > 0)
        assert_legal(spell, number)


@pytest.mark.parametrize("word", ["stop", "kill"])
def test_f06_stop_request_of_a_run_whose_server_was_killed(spell: Spell, tally: Tally, word: str) -> None:
    """The stop request is recorded, then the server dies before it acts on it: nothing waits for ever."""
    spell.client.server.get()
    spell.kill_server()
    with spell.opened_store() as store:
        number = store.add(NewRun(RunSpec(command=tally.command()), "process", 0.1, None, 0))
        assert store.claim(number, []) is not None
        store.request_stop(number, StopRequest(word))
    run = spell.ended(number, PROMPT_S)
    assert (run.state, run.reason) == (STATE_AFTER[word], REASON_AFTER[word])
    assert tally.counts == {}


def test_f06_stop_while_the_server_is_down(spell: Spell, gate: Gate) -> None:
    """`spell stop` starts the server, which finds the run and stops it."""
    number = spell.cast(f"echo up; {gate.command}")
    spell.says(number, b"up")
    spell.kill_server()
    assert spell("stop", str(number)).code == 0
    assert spell.ended(number, PROMPT_S).state == "stopped"


# -- F7: the process of the records is another one by now -----------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "end"),
    [
        ({"boot_id": "01234567-89ab-cdef-0123-456789abcdef"}, ("interrupted", "machine_restarted")),
        ({"start_time": "1"}, ("failed", "supervisor_lost")),
    ],
    ids=["after a reboot", "on the same boot"],
)
def test_f07_pid_of_another_process(spell: Spell, changed: dict[str, str], end: tuple[str, str]) -> None:
    number = spell.cast("echo out > out.txt; echo up; sleep 1000")
    spell.says(number, b"up")
    supervisor = supervisor_of(spell, number)
    spell.kill_server()
    supervisor.kill()
    wait_gone(supervisor)
    claim = spell.home.attempt_dir(number, 1) / "claim.json"
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as innocent:
        claim.write_text(json.dumps(json.loads(claim.read_text()) | {"pid": innocent.pid} | changed))
        run = spell.ended(number, PROMPT_S)
        assert (run.state, run.reason) == end
        assert run.message
        spell.run("true")  # the server has had its time
        assert innocent.poll() is None
        innocent.kill()
    assert (spell.home.run_dir(number) / "out.txt").read_text() == "out\n"


# -- F8: no end without a reason ------------------------------------------------------------------------------------


@dataclass
class Workbench:
    """What provoking an end needs."""

    spell: Spell
    folder: Path
    make_spell: Callable[..., Spell]
    ends: contextlib.ExitStack

    def gate(self) -> Gate:
        return Gate(self.folder / secrets.token_hex(8))


class OneFile:
    """A snapshot of one file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.digest = hashlib.sha256(content).hexdigest()
        self.sizes: Mapping[str, int] = {self.digest: len(content)}
        self.manifest: Manifest = make_manifest([Entry("code.py", FILE, self.digest, len(content))])

    def open_blob(self, digest: str) -> BinaryIO:
        return io.BytesIO(self.content)


def _timed_out(bench: Workbench) -> RunRecord:
    return bench.spell.run("sleep 1000", timeout_s=0.1)


def _condition_met(bench: Workbench) -> RunRecord:
    line = '{"name": "loss", "value": 0, "step": 1, "at": 1}'
    command = f"echo '{line}' >> $SPELL_METRICS; sleep 1000"
    return bench.spell.ended(bench.spell.cast(command, stop_conditions=("loss < 1",)))


def _idle(bench: Workbench) -> RunRecord:
    return bench.spell.ended(bench.spell.cast("sleep 1000", no_output_timeout_s=0.5))


def _stop_requested(bench: Workbench, word: str) -> RunRecord:
    number = bench.spell.cast("sleep 1000")
    bench.spell.reaches(number, "running")
    request_stop(bench.spell, number, word)
    return bench.spell.ended(number)


def _build_failed(bench: Workbench) -> RunRecord:
    project = SlowProject(bench.folder)
    project.fail("no compiler")
    return bench.spell.run("true", pip=(str(project.path),))


def _code_failed(bench: Workbench) -> RunRecord:
    spell, gate, code = bench.spell, bench.gate(), OneFile(secrets.token_bytes(16))
    spell.cast(gate.command, machine_type="whole")
    number = spell.client.runs.cast(RunSpec(command="true", code=Code(code.manifest.tree)), code).number
    spell.home.blob(code.digest).unlink()
    gate.open()
    return spell.ended(number)


def _mount_failed(bench: Workbench) -> RunRecord:
    spell, gate = bench.spell, bench.gate()
    source = spell.run("echo data > data.txt").number
    spell.cast(gate.command, machine_type="whole")
    number = spell.cast("cat data.txt", mounts=(Mount(f"runs/{source}/data.txt", "data.txt"),))
    spell.home.run_dir(source).chmod(0o755)
    (spell.home.run_dir(source) / "data.txt").unlink()
    gate.open()
    return spell.ended(number)


def _executor_failed(bench: Workbench) -> RunRecord:
    return bench.spell.run("true", env={"LONG": "x" * (1 << 20)})  # more than the kernel gives to a process


def _out_of_memory(bench: Workbench) -> RunRecord:
    group = Path("/sys/fs/cgroup/memory", f"spell-test-{secrets.token_hex(4)}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory group can be made here: {error}")
    bench.ends.callback(group.rmdir)
    (group / "memory.limit_in_bytes").write_text(str(64 << 20))
    return bench.spell.run(f"echo $$ > {group}/cgroup.procs && exec python -c 'print(len(b\"x\" * (1 << 30)))'")


def _disk_full(bench: Workbench) -> RunRecord:
    root = bench.folder / "small"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "spell", root], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
    bench.ends.callback(lambda: subprocess.run(["umount", "--lazy", root], check=True))
    spell = bench.make_spell(root=root, config=CONFIG)
    bench.ends.callback(spell.end)
    return spell.run("head -c 100M /dev/zero > big")


def _save_failed(bench: Workbench) -> RunRecord:
    spell = bench.make_spell("open", config=CONFIG, SPELL_NAMESPACES="never")
    start_server(spell)
    return spell.run("touch ../outputs; echo data > data.txt")  # a file where the folder of outputs must be


def _supervisor_lost(bench: Workbench) -> RunRecord:
    number = bench.spell.cast("sleep 1000")
    bench.spell.reaches(number, "running")
    supervisor_of(bench.spell, number).kill()
    return bench.spell.ended(number)


def _container_lost(bench: Workbench) -> RunRecord:
    spell = bench.make_spell("docker", docker=True)
    number = spell.cast("echo up; sleep 1000")
    spell.says(number, b"up")
    (container,) = containers_of(spell.home)
    engine_api().remove_container(container["Id"], force=True)
    return spell.ended(number)


def _secret_lost(bench: Workbench) -> RunRecord:
    spell = bench.spell
    spell.client.secrets.put("TOKEN", b"value")
    spell.home.secrets_key.unlink()
    return spell.run("true", secrets={"TOKEN": "TOKEN"})


def _machine_restarted(bench: Workbench) -> RunRecord:
    number = bench.spell.cast("sleep 1000")
    bench.spell.reaches(number, "running")
    bench.spell.kill_server()
    supervisor_of(bench.spell, number).kill()
    claim = bench.spell.home.attempt_dir(number, 1) / "claim.json"
    claim.write_text(json.dumps(json.loads(claim.read_text()) | {"boot_id": "another"}))
    return bench.spell.ended(number)


def _home_copied(bench: Workbench) -> RunRecord:
    spell = bench.spell
    number = spell.cast("sleep 1000")
    spell.reaches(number, "running")
    root = bench.folder / "copy"
    spell.copy_home(root)
    copy = Spell(root, spell.cwd, spell.env)
    bench.ends.callback(copy.end)
    return copy.ended(number)


def _internal_error(bench: Workbench) -> RunRecord:
    """A spec that a newer server wrote, in a store that an older one opens."""
    spell = bench.spell
    spell.client.server.get()
    spell.kill_server()
    with spell.opened_store() as store:
        number = store.add(NewRun(RunSpec(command="true"), "process", 0.1, None, 0))
    with contextlib.closing(sqlite3.connect(spell.home.database)) as database:
        spec = json.dumps(to_wire(RunSpec(command="true")) | {"wings": 2})
        database.execute("UPDATE runs SET spec = ? WHERE number = ?", (spec, number))
        database.commit()
    return spell.ended(number)


SIGKILL, SIGSEGV = int(signal.SIGKILL), int(signal.SIGSEGV)
PROVOKED: dict[str, tuple[Callable[[Workbench], RunRecord], int | None, int | None]] = {
    "exited_zero": (lambda bench: bench.spell.run("true"), 0, None),
    "exited_nonzero": (lambda bench: bench.spell.run("exit 42"), 42, None),
    "signalled": (lambda bench: bench.spell.run("kill -SEGV $$"), None, SIGSEGV),
    "out_of_memory": (_out_of_memory, None, SIGKILL),
    "timed_out": (_timed_out, None, int(signal.SIGTERM)),
    "condition_met": (_condition_met, None, int(signal.SIGTERM)),
    "idle": (_idle, None, int(signal.SIGTERM)),
    "stop_requested": (lambda bench: _stop_requested(bench, "stop"), None, int(signal.SIGTERM)),
    "kill_requested": (lambda bench: _stop_requested(bench, "kill"), None, SIGKILL),
    "build_failed": (_build_failed, None, None),
    "code_failed": (_code_failed, None, None),
    "secret_lost": (_secret_lost, None, None),
    "mount_failed": (_mount_failed, None, None),
    "executor_failed": (_executor_failed, None, None),
    "disk_full": (_disk_full, 1, None),
    "save_failed": (_save_failed, 0, None),
    "supervisor_lost": (_supervisor_lost, None, None),
    "container_lost": (_container_lost, None, None),
    "machine_restarted": (_machine_restarted, None, None),
    "home_copied": (_home_copied, None, None),
    "internal_error": (_internal_error, None, None),
}
"""Each end reason: how to provoke it for real, and the exit code and signal that are then recorded."""


def test_f08_every_reason_is_provoked() -> None:
    of_imports = {
        name for name in ENDS if name.startswith("imported_")
    }  # they are not ends of runs of ours: test_imports.py
    assert set(PROVOKED) == set(ENDS) - of_imports


@pytest.mark.parametrize(
    "reason",
    [pytest.param(name, marks=[pytest.mark.engine] if name == "container_lost" else []) for name in PROVOKED],
)
def test_f08_every_end_has_a_reason(
    spell: Spell, tmp_path: Path, make_spell: Callable[..., Spell], reason: str
) -> None:
    provoke, exit_code, number = PROVOKED[reason]
    with contextlib.ExitStack() as ends:
        run = provoke(Workbench(spell, tmp_path, make_spell, ends))
    assert (run.reason, run.state, run.exit_code, run.signal) == (reason, ENDS[reason].state, exit_code, number), run
    before, _, after = ENDS[reason].text.partition("{")
    assert run.message.startswith(before)
    if after.endswith("detail}") and before.endswith(" "):
        assert len(run.message) > len(before), "the detail is missing"
    assert "{" not in run.message


# -- F10: something hangs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["supervisor", "reaper"])
def test_f10_a_hung_supervisor_blocks_nobody(spell: Spell, victim: str) -> None:
    number = spell.cast("echo up; sleep 1000")
    spell.says(number, b"up")
    supervisor = supervisor_of(spell, number)
    hung = supervisor if victim == "supervisor" else reaper_of(supervisor)
    hung.suspend()
    began = time.monotonic()
    assert spell("ps").code == 0
    assert spell("machine-types").code == 0
    assert spell.run("true").state == "complete"
    wait_for(lambda: spell.client.stats.samples(str(number)), "samples of it are taken as of any other")
    assert time.monotonic() - began < PROMPT_S
    spell.kill_server()
    assert spell.client.runs.get(str(number)).state == "running"
    assert spell.run("true").state == "complete"
    spell.client.runs.kill(str(number))
    assert spell.ended(number, PROMPT_S).state == "killed"
    wait_gone(hung)


class Stuck(FakeExecutor):
    """The scripted executor, with one more verb: `stick` starts only when `free` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def start(self, launch: Launch, cancelled: Callable[[], bool] = lambda: False) -> Handle:
        if launch.command == "stick":
            self.free.wait()
        return super().start(launch, cancelled)


@pytest.mark.server
def test_f10_an_executor_that_hangs_in_start_blocks_nobody(tmp_path: Path) -> None:
    executor = Stuck()
    with serving(tmp_path, {"fake": executor}, machine.Capacity(4, 1 << 30, ())) as client:
        stuck = client.runs.cast(RunSpec(command="stick")).number
        wait_for(lambda: client.runs.get(str(stuck)).state == "building", "the run that hangs")
        for _ in range(5):
            assert (
                client.runs.wait(str(client.runs.cast(RunSpec(command="exit 0")).number), PROMPT_S).state == "complete"
            )
        assert client.runs.stop(str(stuck)) == "building"
        assert [run.number for run in client.runs.list(Filter(states=["building"]))] == [stuck]
        executor.free.set()
        assert client.runs.wait(str(stuck), PROMPT_S).state == "stopped"


# -- F11: many at once ----------------------------------------------------------------------------------------------

CLAIM_ALL = """
import sys
from pathlib import Path
from orchestrator.store import Store
from orchestrator.store.database import Database

store = Store(Database(Path(sys.argv[1])))
numbers = [int(number) for number in sys.argv[2:]]
print("ready", flush=True)
sys.stdin.readline()
for number in numbers:
    if store.claim(number, []):
        print(number, flush=True)
"""


def test_f11_one_claim_wins(tmp_path: Path) -> None:
    """Two threads of this process, and two more processes, want the same runs at the same time."""
    path = tmp_path / "spell.db"
    store = Store(Database(path))
    numbers = [store.add(NewRun(RunSpec(command="true"), "process", 1, None, 0)) for _ in range(40)]
    processes = [python(CLAIM_ALL, str(path), *map(str, numbers)) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    won: list[int] = []
    begin = threading.Barrier(3)

    def claim_all() -> None:
        begin.wait()
        won.extend(number for number in numbers if store.claim(number, []))

    threads = [threading.Thread(target=claim_all) for _ in range(2)]
    for thread in threads:
        thread.start()
    begin.wait()
    outputs = [process.communicate("go\n", timeout=60)[0] for process in processes]
    for thread in threads:
        thread.join()
    winners = won + [int(line) for output in outputs for line in output.split()]
    assert sorted(winners) == numbers
    for number in numbers:
        run = store.claimed(number)
        assert (run.state, run.fence, run.attempt) == ("building", 1, 1)
        assert [event.state for event in store.events(number)] == ["machine_requested", "building"]


def test_f11_many_runs_end_at_once(spell: Spell, gate: Gate) -> None:
    numbers = [spell.cast(f"{gate.command}; echo {index} > out.txt; exit {index % 2}") for index in range(16)]
    for number in numbers:
        spell.reaches(number, "running")
    free_before = {item.name: item.free_now for item in spell.client.machines.list()}
    assert free_before["cpu"] == 4
    gate.open()
    for index, number in enumerate(numbers):
        run = spell.ended(number)
        assert (run.exit_code, run.state) == (index % 2, "failed" if index % 2 else "complete")
        assert run.outputs_count == 1
        assert_legal(spell, number)
    wait_for(lambda: spell.client.server.get().active_runs == 0, "no active run")
    free = {item.name: item.free_now for item in spell.client.machines.list()}
    assert (free["cpu"], free["whole"]) == (20, 1)


# -- F12: the end is final ------------------------------------------------------------------------------------------


def test_f12_late_messages_are_refused(tmp_path: Path) -> None:
    """A worker that lost its run, and one that comes after the end, change nothing."""
    store = Store(Database(tmp_path / "spell.db"))
    number = store.add(NewRun(RunSpec(command="true"), "process", 1, None, 0))
    first = store.claim(number, [])
    second = store.take_over(number)
    assert first is not None
    assert second is not None
    assert second.fence > first.fence
    for late in (
        lambda: store.move(number, first.fence, State.RUNNING),
        lambda: store.end(number, first.fence, "exited_zero", exit_code=0),
        lambda: store.update(number, first.fence, environment="late"),
    ):
        with pytest.raises(StaleFence):
            late()
    assert store.record(number).state == "building"
    store.end(number, second.fence, "exited_nonzero", exit_code=3)
    before = (store.record(number), store.events(number))
    for state in State:
        for fence in (first.fence, second.fence):
            with pytest.raises(StaleFence):
                store.move(number, fence, state)
    with pytest.raises(StaleFence):
        store.end(number, second.fence, "exited_zero", exit_code=0)
    with pytest.raises(StaleFence):
        store.update(number, second.fence, environment="late")
    with pytest.raises(Conflict):
        store.request_stop(number, StopRequest.KILL)
    assert store.take_over(number) is None
    assert store.claim(number, []) is None
    assert (store.record(number), store.events(number)) == before


def test_f12_a_verdict_that_comes_late_changes_nothing(spell: Spell) -> None:
    number = spell.cast("echo up; sleep 1000")
    spell.says(number, b"up")
    supervisor_of(spell, number).kill()
    before = spell.ended(number)
    assert before.reason == "supervisor_lost"
    verdict = json.loads(verdict_of(spell, spell.run("true").number).read_text())
    verdict_of(spell, number).write_text(json.dumps(verdict))
    spell.kill_server()
    assert spell.run("true").state == "complete"
    assert spell.client.runs.get(str(number)) == before


def test_f12_an_attempt_that_was_given_up_never_starts(tmp_path: Path, tally: Tally) -> None:
    """A supervisor that comes late finds its attempt taken by the server that came back, and touches nothing."""
    folder = tmp_path / "attempt-1"
    folder.mkdir()
    executor = ProcessExecutor()
    assert executor.recover(folder) is None
    launch = make_launch(tmp_path, tally.command(), env=dict(os.environ), folder=folder)
    with pytest.raises(Conflict):
        executor.start(launch)
    assert executor.recover(folder) is None
    assert tally.counts == {}
    assert not (folder / "verdict.json").exists()


# -- F13: cancelled while it waited ---------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["stop", "kill"])
def test_f13_cancelled_while_queued_never_starts(spell: Spell, tally: Tally, gate: Gate, word: str) -> None:
    blocker = spell.cast(gate.command, machine_type="whole")
    spell.reaches(blocker, "running")
    cancelled = [spell.cast(tally.command("cancelled"), machine_type="whole") for _ in range(3)]
    later = spell.cast(tally.command("later"), machine_type="whole")
    for number in cancelled:
        request_stop(spell, number, word)
    spell.kill_server()
    spell.client.server.get()
    gate.open()
    assert_completed_once(spell, later, tally, "later")
    assert [spell.client.runs.get(str(number)).state for number in cancelled] == ["killed"] * 3
    assert [spell.client.runs.get(str(number)).attempt for number in cancelled] == [0] * 3
    assert tally.counts == {"later": 1}


def test_f13_a_wish_that_was_recorded_while_queued_is_carried_out(spell: Spell, tally: Tally) -> None:
    """As a server leaves it that died between the stop request and the end; or took the run back into the queue."""
    spell.client.server.get()
    spell.kill_server()
    with spell.opened_store() as store:
        number = store.add(NewRun(RunSpec(command=tally.command()), "process", 0.1, None, 0))
    with contextlib.closing(sqlite3.connect(spell.home.database)) as database:
        database.execute("UPDATE runs SET wish = 'stop' WHERE number = ?", (number,))
        database.commit()
    assert spell.ended(number, PROMPT_S).state == "killed"
    assert tally.counts == {}


def test_what_was_not_saved_of_a_run_that_has_ended_stays(spell: Spell) -> None:
    """Its processes may have been alive when it ended: nobody removes what they left but `spell gc`."""
    number = spell.run("echo x > f").number
    (spell.home.work_dir(number) / "code").mkdir(parents=True)
    (spell.home.work_dir(number) / "code" / "f").write_text("x")
    with spell.changed_store() as store:
        store.execute("UPDATE runs SET state = 'failed', reason = 'supervisor_lost' WHERE number = ?", (number,))
        store.execute("DELETE FROM events WHERE run = ? AND state = 'pushing'", (number,))
    spell.kill_server()
    assert spell.client.runs.get(str(number)).state == "failed"
    assert (spell.home.work_dir(number) / "code" / "f").read_text() == "x"


def test_a_killed_run_ends_also_when_its_outputs_cannot_be_removed(spell: Spell) -> None:
    """It was killed while it was pushing; something of the machine lies in its outputs."""
    number = spell.run("echo x > f").number
    spell.kill_server()
    with contextlib.closing(sqlite3.connect(spell.home.database)) as store, store:
        store.execute("UPDATE runs SET state = 'pushing', wish = 'kill' WHERE number = ?", (number,))
    with small_disk(spell.home.run_dir(number) / "disk"):
        run = spell.ended(number, PROMPT_S)
        assert (run.state, run.reason, run.outputs_count) == ("killed", "kill_requested", 0)
        notice = [event.text for event in spell.client.runs.events(str(number)) if event.kind == "notice"][-1]
        assert notice.startswith(f"Not all of its outputs are lost: {spell.home.run_dir(number)} cannot be removed: ")


def test_outputs_on_another_disk(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "runs").symlink_to(elsewhere)
        assert elsewhere.stat().st_dev != tmp_path.stat().st_dev, "it is no other disk"
        spell = make_spell()
        run = spell.run("mkdir d; echo x > d/f; ln d/f twin; ln -s d/f link; printf '#!' > tool; chmod +x tool")
        assert (run.state, run.outputs_count) == ("complete", 4), run.message
        assert sorted(path.name for path in elsewhere.iterdir()) == [str(run.number)]
        assert (elsewhere / str(run.number) / "link").read_text() == "x\n"
        assert spell("verify", str(run.number)).code == 0
        assert not spell.home.work_dir(run.number).exists()
    finally:
        subprocess.run(["chmod", "-R", "u+w", elsewhere], check=True)
        shutil.rmtree(elsewhere)
