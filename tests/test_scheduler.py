"""Order, capacity and GPUs. What the machine has is made up where it must be: nothing here needs a GPU."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from conftest import Spell, wait_for
from servers import serving
from sqlalchemy import Engine
from sqlalchemy import event as sqlalchemy_event

from orchestrator import machine
from orchestrator.client.client import Client
from orchestrator.errors import ImpossibleRequest
from orchestrator.executors.fake import FakeExecutor
from orchestrator.executors.process import ProcessExecutor
from orchestrator.home import Home
from orchestrator.lifecycle.waiting import waiting
from orchestrator.machine import Capacity
from orchestrator.records.runs import RunRecord
from orchestrator.server.assembly import Assembly
from orchestrator.service import OWNER
from orchestrator.spec.run import RunSpec
from orchestrator.states import FINAL, State
from orchestrator.store import MachineRequest, NewRun, Store
from orchestrator.store.database import Database

pytestmark = pytest.mark.server


GIB = 1 << 30
LIMIT_S = 60.0
LIST_LIMIT_S = 5.0  # for a whole command, on a busy machine
CORES = machine.detect().cpus
HOME_CONFIG = f"""
[machine_types.whole]
cpus = {CORES}

[machine_types.sliver]
cpus = {CORES / 10}

[machine_types.most]
cpus = {CORES * 0.8}

[machine_types.giant]
cpus = {CORES + 1}

[machine_types.elephant]
memory_gb = 1000000
"""
SERVER_CONFIG = """
[machine_types.cpu]
cpus = 1

[machine_types.pair]
cpus = 2

[machine_types.gpu]
cpus = 0.5
gpus = 1

[machine_types.gpus]
cpus = 0.5
gpus = 2

[machine_types.memory]
cpus = 0.5
memory_gb = 6
"""
MACHINE = Capacity(cpus=4, memory_bytes=16 * GIB, gpus=(0, 1, 2))


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    return make_shared("scheduler", config=HOME_CONFIG)


@pytest.fixture
def spell(shared: Spell) -> Iterator[Spell]:
    yield shared
    shared.clear()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Client]:
    """A server on `MACHINE` whose executor runs nothing."""
    with serving(tmp_path / "fake", {"fake": FakeExecutor()}, MACHINE, SERVER_CONFIG) as client:
        yield client


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Client]:
    """A server on `MACHINE` whose executor runs real processes; the GPUs are only numbers to it."""
    with serving(tmp_path / "real", {"process": ProcessExecutor(checks_gpus=False)}, MACHINE, SERVER_CONFIG) as client:
        yield client


def cast(client: Client, command: str, machine_type: str = "cpu") -> int:
    return client.runs.cast(RunSpec(command=command, machine_type=machine_type)).number


def state(client: Client, number: int) -> str:
    return client.runs.get(str(number)).state


def reaches(client: Client, number: int, *states: str) -> None:
    wait_for(lambda: state(client, number) in states, f"run {number} in {states}")


def assert_apart(runs: list[RunRecord], cpus: float) -> None:
    """The commands of these runs, each of `cpus` cores, never ran on more than `MACHINE` has."""
    moments = [(run.started_at, 1, run.number) for run in runs] + [(run.ended_at, -1, run.number) for run in runs]
    running = 0
    for _, change, _ in sorted(moments):  # an end comes before a start at the same time
        running += change
        assert running * cpus <= MACHINE.cpus


def assert_never_overcommitted(client: Client, sizes: dict[int, tuple[float, float]]) -> None:
    """By their events, the runs never held more cores or memory than there are, nor one GPU twice.

    Args:
        sizes: number → cores, bytes of memory.
    """
    events = [event for number in sizes for event in client.runs.events(str(number)) if event.kind == "state"]
    held: set[int] = set()
    for event in sorted(events, key=lambda event: event.id):
        if event.state in (State.BUILDING, State.MOUNTING, State.RUNNING):
            held.add(event.run)
        else:
            held.discard(event.run)
        assert sum(sizes[number][0] for number in held) <= MACHINE.cpus + 1e-9
        assert sum(sizes[number][1] for number in held) <= MACHINE.memory_bytes


def demand(number: int, cpus: float, memory_bytes: int = 0, gpus_wanted: int = 0, *gpus: int) -> MachineRequest:
    return MachineRequest(number, 0, None, cpus, memory_bytes, gpus_wanted, gpus, ())


def test_the_words_of_waiting() -> None:
    total, gib = Capacity(4, 8 << 30, (0, 1)), 1 << 30
    holding = [demand(1, 1, 6 * gib), demand(2, 0.5, 0, 2, 0, 1), *(demand(number, 0.25) for number in range(3, 9))]
    queue = [demand(10, 0.5, 4 * gib, 1), demand(11, 2), demand(12, 1)]
    assert waiting(total, holding, iter(queue), {13, 15}, {10, 11, 12, 13, 14}) == {
        10: "4.0 GiB of memory, which run 1 holds and 1 GPU, which run 2 holds; 1st in the queue",
        11: "2 cores, which runs 1, 2, 3, 4, 5 and 3 more hold; 2nd in the queue",
        12: "run 10, which is before it; 3rd in the queue",
        13: "the end of the pause after its failed attempt",
    }, "14 has left the queue meanwhile: nobody says that it pauses"


def test_all_followers_share_one_look_at_the_queue(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    service = Assembly(home, {"fake": FakeExecutor()}, MACHINE).service
    store = Store(Database(home.database))
    numbers = [store.add(NewRun(RunSpec("true"), "fake", 1, None, 0)) for _ in range(50)]
    feeds = [service.logs.follow(OWNER, str(number)) for number in numbers]
    asked: list[object] = []

    def count(*about: object) -> None:
        asked.append(about[2])

    sqlalchemy_event.listen(Engine, "before_cursor_execute", count)
    words = [feed.waits_for() for feed in feeds]
    sqlalchemy_event.remove(Engine, "before_cursor_execute", count)
    assert (words[0], words[49]) == ("the scheduler; 1st in the queue", "run 1, which is before it; 50th in the queue")
    assert len(asked) < len(feeds), "it was not looked at for each of them"


def test_first_in_first_out(spell: Spell, tmp_path: Path) -> None:
    order = tmp_path / "order"
    numbers = [spell.cast(f"echo {index} >> {order}", machine_type="whole") for index in range(8)]
    runs = [spell.ended(number) for number in numbers]
    assert order.read_text().split() == [str(index) for index in range(8)]
    for earlier, later in pairwise(runs):
        assert earlier.ended_at is not None
        assert later.started_at is not None
        assert earlier.ended_at <= later.started_at


def test_a_waiting_run_keeps_its_place(spell: Spell, tmp_path: Path) -> None:
    """A small run that would fit does not pass a big one that waits."""
    gate = tmp_path / "gate"
    first = spell.cast(f"until [ -e {gate} ]; do sleep 0.02; done", machine_type="most")
    spell.reaches(first, "running")
    big = spell.cast("true", machine_type="most")
    small = [spell.cast("true", machine_type="sliver") for _ in range(5)]
    free = {item.name: item.free_now for item in spell.client.machines.list()}
    assert (free["sliver"], free["most"]) == (2, 0)
    assert {spell.client.runs.get(str(number)).state for number in small} == {"machine_requested"}
    waits = {run.number: run.waits_for for run in spell.client.runs.list() if run.waits_for}
    held = f"{CORES * 0.8:g} cores, which run {first} holds; 1st in the queue"
    behind = [f"run {big}, which is before it; {place} in the queue" for place in ("2nd", "3rd", "4th", "5th", "6th")]
    assert waits == {big: held, **dict(zip(small, behind, strict=True))}
    assert f"Run {big} waits for {held}.\n" in spell("ps").err
    assert re.search(rf"^Waits For +{held}, since 2\d\d\d-", spell("info", str(big)).out, re.MULTILINE)
    with spell.popen("logs", "-f", "-v", str(big)) as following:
        assert following.stderr is not None
        lines = (line.decode() for line in following.stderr)
        told = next(line for line in lines if "Waiting for" in line)
        assert told.startswith(f"💫 Waiting for {held}, since 2")
        gate.touch()
        assert any("complete" in line for line in lines)
    claims = []
    for number in (big, *small):
        assert spell.ended(number).state == "complete"
        claims += [event.id for event in spell.client.runs.events(str(number)) if event.state == "building"]
    assert claims == sorted(claims)
    assert len(claims) == 6


@pytest.mark.parametrize(
    ("machine_type", "words"), [("giant", "cores"), ("elephant", "GiB of memory"), ("gpu", "1 GPU; this machine has")]
)
def test_impossible_request_is_refused_at_once(spell: Spell, machine_type: str, words: str) -> None:
    if machine_type == "gpu" and machine.detect().gpus:
        pytest.skip("this machine has a GPU")
    newest = [run.number for run in spell.client.runs.list(limit=1)]
    with pytest.raises(ImpossibleRequest, match=words):
        spell.cast("true", machine_type=machine_type)
    done = spell("run", "-t", machine_type, "true")
    assert done.code == 3
    assert words in done.err
    assert "can never run here" in done.err
    assert [run.number for run in spell.client.runs.list(limit=1)] == newest
    possible = {item.name: item.possible for item in spell.client.machines.list()}
    assert not possible[machine_type]
    assert possible["whole"]


def test_cores_are_never_overcommitted(real: Client) -> None:
    numbers = {cast(real, "sleep 0.05", kind): kind for kind in ["cpu", "pair", "cpu", "pair", "cpu"] * 4}
    for number in numbers:
        assert real.runs.wait(str(number), LIMIT_S).state == "complete"
    assert_never_overcommitted(real, {number: ({"cpu": 1, "pair": 2}[kind], 0) for number, kind in numbers.items()})
    assert_apart([real.runs.get(str(number)) for number, kind in numbers.items() if kind == "pair"], 2)


def test_memory_is_never_overcommitted(fake: Client) -> None:
    held = [cast(fake, "hang", "memory") for _ in range(3)]
    for number in held[:2]:
        reaches(fake, number, "running")
    free = {item.name: item.free_now for item in fake.machines.list()}
    assert (free["memory"], free["cpu"]) == (0, 3)
    assert state(fake, held[2]) == "machine_requested"
    fake.runs.stop(str(held[0]))
    reaches(fake, held[2], "running")
    assert_never_overcommitted(fake, dict.fromkeys(held, (0.5, 6 * GIB)))


def test_gpus_are_handed_out_once(real: Client, tmp_path: Path) -> None:
    """Each run takes a folder per GPU that only one can make, as it would take the GPU itself."""
    command = (
        f"cd {tmp_path}; for gpu in ${{CUDA_VISIBLE_DEVICES//,/ }}; do mkdir $gpu || exit 1; done; sleep 0.05;"
        'rmdir ${CUDA_VISIBLE_DEVICES//,/ }; echo "$CUDA_VISIBLE_DEVICES"'
    )
    numbers = {cast(real, command, kind): kind for kind in ["gpu", "gpus", "gpu"] * 5}
    seen = set()
    for number, kind in numbers.items():
        assert real.runs.wait(str(number), LIMIT_S).state == "complete"
        run = real.runs.get(str(number))
        log = real.logs.get(str(number)).chunks
        given = b"".join(log).decode().strip().split(",")
        assert len(given) == {"gpu": 1, "gpus": 2}[kind]
        assert run.gpus == []  # given back
        seen.update(given)
    assert seen == {"0", "1", "2"}
    assert_never_overcommitted(real, dict.fromkeys(numbers, (0.5, 0)))


def test_f18_a_run_whose_gpu_is_gone_is_not_started(tmp_path: Path) -> None:
    """One that the driver does not have."""
    gone = replace(MACHINE, gpus=(len(machine.detect().gpus),))
    with serving(tmp_path, {"process": ProcessExecutor()}, gone, SERVER_CONFIG) as client:
        run = client.runs.wait(str(cast(client, "echo on the CPU", "gpu")), LIMIT_S)
        assert (run.state, run.reason) == ("failed", "executor_failed")
        assert "1 GPU asked for, but none seen" in run.message and "spell doctor" in run.message
        assert client.logs.get(str(run.number)).read() == b""
        assert client.runs.wait(str(cast(client, "true")), LIMIT_S).state == "complete"


def test_gpus_of_a_running_run_are_told(fake: Client) -> None:
    first, second = cast(fake, "hang", "gpus"), cast(fake, "hang", "gpu")
    for number in (first, second):
        reaches(fake, number, "running")
    assert sorted(fake.runs.get(str(first)).gpus + fake.runs.get(str(second)).gpus) == [0, 1, 2]
    free = {item.name: item.free_now for item in fake.machines.list()}
    assert (free["gpu"], free["gpus"]) == (0, 0)


def test_a_run_without_gpus_sees_none(real: Client) -> None:
    number = cast(real, "python -c 'import json, os; print(json.dumps(os.environ[\"CUDA_VISIBLE_DEVICES\"]))'")
    assert real.runs.wait(str(number), LIMIT_S).state == "complete"
    assert json.loads(real.logs.get(str(number)).read()) == ""


def test_waiting_for_a_gpu_holds_up_nobody_else(fake: Client) -> None:
    """Not even when many wait: more than the scheduler reads at once."""
    holders = [cast(fake, "hang", "gpu") for _ in MACHINE.gpus]
    for number in holders:
        reaches(fake, number, "running")
    waiting = [cast(fake, "exit 0", "gpu") for _ in range(50)]
    for _ in range(3):
        assert fake.runs.wait(str(cast(fake, "exit 0")), LIMIT_S).state == "complete"
    assert {state(fake, number) for number in waiting} == {"machine_requested"}
    fake.runs.stop(str(holders[0]))
    assert fake.runs.wait(str(waiting[0]), LIMIT_S).state == "complete"
    for number in waiting[1:]:
        fake.runs.wait(str(number), LIMIT_S)
    gpus_order = [fake.runs.get(str(number)).started_at for number in waiting]
    assert gpus_order == sorted(gpus_order)  # type: ignore[type-var]


def test_f13_cancelled_while_it_waits_for_a_gpu(fake: Client) -> None:
    holders = [cast(fake, "hang", "gpu") for _ in MACHINE.gpus]
    for number in holders:
        reaches(fake, number, "running")
    cancelled, next_one = cast(fake, "hang", "gpus"), cast(fake, "exit 0", "gpu")
    assert fake.runs.stop(str(cancelled)) == "killed"
    fake.runs.stop(str(holders[0]))
    assert fake.runs.wait(str(next_one), LIMIT_S).state == "complete"
    fake.runs.stop(str(holders[1]))
    both = cast(fake, "exit 0", "gpus")
    assert fake.runs.wait(str(both), LIMIT_S).state == "complete"
    run = fake.runs.get(str(cancelled))
    assert (run.state, run.attempt, run.gpus) == ("killed", 0, [])


@pytest.mark.parametrize("command", ["exit 0", "exit 3", "signal 9", "refuse", "lose", "hang"])
def test_the_machine_is_free_after_every_end(fake: Client, command: str) -> None:
    number = cast(fake, command, "gpus")
    if command == "hang":
        reaches(fake, number, "running")
        fake.runs.kill(str(number))
    assert fake.runs.wait(str(number), LIMIT_S).state in FINAL

    def free() -> dict[str, int]:
        return {item.name: item.free_now for item in fake.machines.list() if item.name in {"cpu", "gpu", "memory"}}

    wait_for(lambda: free() == {"cpu": 4, "gpu": 3, "memory": 2}, "the whole machine is free")  # soon after the end


def final_states(client: Client) -> dict[int, str]:
    """number → state of all runs; nothing while one of them is active."""
    ends = {run.number: run.state for run in client.runs.list(limit=10_000)}
    return ends if FINAL.issuperset(ends.values()) else {}


def test_f43_a_thousand_submissions_at_once(make_spell: Callable[..., Spell]) -> None:
    """All are recorded once, in the queue first come first served; lists stay fast, and the server small."""
    spell = make_spell(config=HOME_CONFIG)
    holder = spell.cast("sleep 1000", machine_type="whole")
    spell.reaches(holder, "running")
    before = psutil.Process(spell.server_pid).memory_info().rss
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda index: spell.cast(f"echo {index}", machine_type="sliver"), range(1000)))
    assert sorted(numbers) == list(range(holder + 1, holder + 1001))
    began = time.monotonic()
    assert len(spell("ps", "-n", "1", "--json").json()) == 1
    assert time.monotonic() - began < LIST_LIMIT_S
    assert len(spell.client.runs.list(limit=2000)) == 1001
    assert psutil.Process(spell.server_pid).memory_info().rss - before < 100 << 20
    first, others = sorted(numbers)[:50], sorted(numbers)[50:]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: spell.client.runs.kill(str(number)), others))
    spell.client.runs.kill(str(holder))
    spell.ended(first[-1])
    ends = wait_for(lambda: final_states(spell.client), "the end of all")
    assert [ends[number] for number in first] == ["complete"] * 50
    assert [ends[number] for number in others] == ["killed"] * 950
    found = [next(e.at for e in spell.client.runs.events(str(number)) if e.state == "building") for number in first]
    assert found == sorted(found)
    for index, number in enumerate(numbers):
        if number in first:
            assert spell.log(number) == f"{index}\n".encode()
