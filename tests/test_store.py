"""The store: what it refuses, what it finds, and that nothing that it said it had written is ever lost."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from conftest import Spell, wait_for
from servers import python, serving
from sqlalchemy import create_engine

import orchestrator.store
from orchestrator import machine
from orchestrator.client.client import Client
from orchestrator.errors import Conflict, HomeUnusable, NotFound, StaleFence, StoreBusy
from orchestrator.executors.process import ProcessExecutor
from orchestrator.home import Home
from orchestrator.records.files import ArtifactRecord
from orchestrator.records.metrics import MetricRecord
from orchestrator.spec.filters import Filter
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import RunSpec
from orchestrator.spec.workflow import Step, WorkflowSpec
from orchestrator.states import FINAL, MOVES, State, StopRequest
from orchestrator.store import CastBefore, NewRun, Store, Unheeded, database
from orchestrator.store import tables as store_tables
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade

DATA = Path(__file__).parent / "data"
MIGRATIONS = Path(orchestrator.store.__file__).parent / "migrations"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spell.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    database = Database(path)
    yield Store(database)
    database.close()


def add(store: Store, command: str = "true", **fields: Any) -> int:
    return store.add(NewRun(RunSpec(command=command, **fields), "process", 1, None, 0))


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """The file itself, without our code."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        yield connection


def assert_sound(path: Path) -> None:
    with raw(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


# -- moves and fences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("current", State)
def test_moves_table_is_enforced(store: Store, path: Path, current: State) -> None:
    for to in State:
        number = add(store)
        claimed = store.claim(number, [])
        assert claimed is not None
        with raw(path) as connection:
            connection.execute("UPDATE runs SET state = ? WHERE number = ?", (current, number))
        before = (store.record(number), store.events(number))
        if to in MOVES[current]:
            store.move(number, claimed.fence, to, "why")
            assert store.record(number).state == to
            assert [(event.kind, event.state, event.text) for event in store.events(number)[2:]] == [
                ("state", to, "why")
            ]
        else:
            with pytest.raises(StaleFence if current in FINAL else Conflict):
                store.move(number, claimed.fence, to, "why")
            assert (store.record(number), store.events(number)) == before


def test_state_and_event_are_written_together_or_not_at_all(store: Store, path: Path) -> None:
    number = add(store)
    claimed = store.claim(number, [])
    assert claimed is not None
    with raw(path) as connection:
        connection.execute("CREATE TRIGGER no BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no events'); END")
    with pytest.raises(Exception, match="no events"):
        store.move(number, claimed.fence, State.RUNNING)
    with pytest.raises(Exception, match="no events"):
        store.request_stop(number, StopRequest.KILL)
    run = store.record(number)
    assert (run.state, run.wish) == ("building", None)


def test_fence_grows_and_the_older_one_is_refused(store: Store) -> None:
    number = add(store)
    first = store.claim(number, [2, 0], [5, 7])
    assert first is not None
    assert (first.fence, first.attempt, first.gpus, first.cores) == (1, 1, (2, 0), (5, 7))
    assert store.claim(number, []) is None
    second = store.take_over(number)
    assert second is not None
    assert (second.fence, second.attempt, second.gpus, second.cores) == (2, 1, (2, 0), (5, 7))
    (occupying,) = store.occupying()
    assert (occupying.gpus, occupying.cores) == ((2, 0), (5, 7))
    with pytest.raises(StaleFence):
        store.move(number, first.fence, State.RUNNING)
    with pytest.raises(StaleFence):
        store.update(number, first.fence, python="3.0")
    store.move(number, second.fence, State.MACHINE_REQUESTED, gpus="[]")
    third = store.claim(number, [])
    assert third is not None
    assert (third.fence, third.attempt) == (3, 2)
    with pytest.raises(StaleFence):
        store.end(number, second.fence, "exited_zero")
    assert store.record(number).state == "building"


def test_stop_request(store: Store) -> None:
    queued, running = add(store), add(store)
    assert store.request_stop(queued, StopRequest.STOP) == "killed"
    assert [event.state for event in store.events(queued)] == ["machine_requested", "stopping", "killed"]
    assert store.claim(queued, []) is None
    claimed = store.claim(running, [])
    assert claimed is not None
    assert store.request_stop(running, StopRequest.STOP) == "building"
    assert store.request_stop(running, StopRequest.KILL) == "building"
    with pytest.raises(Conflict, match="already being killed"):
        store.request_stop(running, StopRequest.STOP)
    assert store.claimed(running).stop_request == "kill"
    assert [event.state for event in store.events(running) if event.kind == "wish"] == ["stopping", "killing"]
    with pytest.raises(Unheeded):
        store.end(running, claimed.fence, "exited_nonzero")
    store.end(running, claimed.fence, "kill_requested")
    with pytest.raises(Conflict):
        store.request_stop(running, StopRequest.KILL)
    with pytest.raises(NotFound):
        store.request_stop(99, StopRequest.STOP)


@pytest.mark.parametrize("wish", StopRequest)
def test_in_a_copy_of_the_home_no_request_overrules_the_loss(store: Store, wish: StopRequest) -> None:
    number = add(store)
    claimed = store.claim(number, [])
    assert claimed is not None
    store.request_stop(number, wish)
    store.end(number, claimed.fence, "home_copied")
    assert store.record(number).reason == "home_copied"


def test_what_is_accepted_has_its_effect(store: Store) -> None:
    number = add(store)
    claimed = store.claim(number, [])
    assert claimed is not None
    store.request_stop(number, StopRequest.STOP)
    with pytest.raises(Unheeded):  # the worker decided before the request came
        store.move(number, claimed.fence, State.SAVING, reason="exited_zero")
    assert store.record(number).state == "building"
    store.move(number, claimed.fence, State.SAVING, reason="stop_requested")
    assert store.request_stop(number, StopRequest.STOP) == "saving"  # it was accepted before
    store.end(number, claimed.fence, "supervisor_lost")  # a loss is told
    number = add(store)
    claimed = store.claim(number, [])
    assert claimed is not None
    store.move(number, claimed.fence, State.SAVING, reason="exited_zero")
    with pytest.raises(Conflict, match="cannot be stopped any more") as caught:
        store.request_stop(number, StopRequest.STOP)
    assert caught.value.cure == f"To lose them: spell kill {number}"
    assert store.record(number).wish is None
    assert store.request_stop(number, StopRequest.KILL) == "saving"


def test_a_request_that_comes_twice_casts_once(store: Store) -> None:
    new = NewRun(RunSpec(command="true"), "process", 1, None, 0, key="k1")
    number = store.add(new)
    with pytest.raises(CastBefore) as caught:
        store.add(new)
    assert caught.value.number == number
    assert len(store.summaries()) == 1
    for key in ("", "k2"):
        store.add(dataclasses.replace(new, key=key))
        store.casts.check_new("", "run")
    with pytest.raises(CastBefore):
        store.casts.check_new("k2", "run")
    store.casts.check_new("k2", "search")
    assert store.workflows.add(WorkflowSpec("w", (Step("only", RunSpec("true")),)), "k2") == 1  # each noun has its own


# -- finding --------------------------------------------------------------------------------------------------------


def test_find(store: Store) -> None:
    with pytest.raises(NotFound):
        store.find("latest")
    for name in ("", "jokes", "", "jokes", "other", ""):
        add(store, name=name)
    expected = {"1": 1, "6": 6, "latest": 6, "latest~0": 6, "latest~1": 5, "latest~5": 1, "jokes": 4, "other": 5}
    assert {reference: store.find(reference) for reference in expected} == expected
    absent = ["", "0", "7", "-1", "1.0", "1 ", "9" * 18, "9" * 40, "Jokes", "joke%", "joke_"]
    absent += ["latest~6", "latest~x", "latest~-1", "latest~" + "9" * 9, "latest~" + "9" * 30]
    for reference in absent:
        with pytest.raises(NotFound):
            store.find(reference)


def test_numbers_are_never_used_again(store: Store, path: Path) -> None:
    add(store)
    number = add(store)
    with raw(path) as connection:
        connection.execute("DELETE FROM events WHERE run = ?", (number,))
        connection.execute("DELETE FROM runs WHERE number = ?", (number,))
    assert add(store) == number + 1


def test_filters_and_paging(store: Store) -> None:
    for index in range(1, 31):
        labels = {"all", f"third-{index % 3}"} | ({"even"} if index % 2 == 0 else set())
        add(store, name="named" if index % 10 == 0 else "", labels=tuple(labels))
    for number in range(1, 11):
        claimed = store.claim(number, [])
        assert claimed is not None
        store.end(number, claimed.fence, "exited_nonzero" if number % 2 else "stop_requested")

    def numbers(limit: int = 50, before: int = 0, **filters: Any) -> list[int]:
        return [run.number for run in store.summaries(Filter(**filters), limit=limit, before=before)]

    assert numbers() == list(range(1, 31))
    assert numbers(limit=3) == [28, 29, 30]
    assert numbers(limit=3, before=28) == [25, 26, 27]
    assert numbers(limit=3, before=2) == [1]
    assert numbers(before=1) == []
    assert numbers(name="named") == [10, 20, 30]
    assert numbers(name="absent") == []
    assert numbers(states=["failed"]) == [1, 3, 5, 7, 9]
    assert numbers(states=["failed", "stopped"], limit=4) == [7, 8, 9, 10]
    assert numbers(states=["building"]) == []
    assert numbers(labels=["even"], states=["machine_requested"]) == list(range(12, 31, 2))
    assert numbers(labels=["even", "third-0"], limit=4, before=30) == [24, 26, 27, 28]
    assert numbers(labels=["even"], name="named", states=["stopped"]) == [10]
    assert store.summaries(limit=1)[0].labels == ["all", "even", "third-0"]
    page, seen = numbers(limit=7), []
    while page:
        seen = page + seen
        page = numbers(limit=7, before=page[0])
    assert seen == list(range(1, 31))


def test_all_that_is_recorded_is_read_again(store: Store) -> None:
    source = add(store)
    spec = RunSpec(
        command="python train.py --rate :RATE:",
        description="a description with 'quotes' and ✨",
        name="train",
        labels=("b", "a"),
        params={"RATE": "0.1"},
        mounts=(Mount(f"runs/{source}/data", "data"), Mount("uploads/cifar", "cifar")),
        env={"TOKEN": "secret"},
        timeout_s=60.0,
    )
    number = store.add(NewRun(spec, "process", 2.5, 1 << 40, 1))
    run = store.record(number)
    assert (run.command, run.name, run.labels, run.description) == (
        "python train.py --rate 0.1", "train", ["a", "b"], spec.description,
    )  # fmt: skip
    assert run.mounts == [
        {"resource": f"runs/{source}/data", "path": "data"},
        {"resource": "uploads/cifar", "path": "cifar"},
    ]
    assert store.record(source).mounted_by == [number]
    claimed = store.claimed(number)
    assert (claimed.cpus, claimed.memory_bytes, claimed.gpus_wanted) == (2.5, 1 << 40, 1)
    store.set_artifacts(number, [ArtifactRecord(number, "old", 1, "100644", None, "")])
    found = [
        ArtifactRecord(number, "model/ä.bin", 1 << 41, "100644", None, ""),
        ArtifactRecord(number, "pipe", 0, "", None, "a named pipe, not a file"),
    ]
    store.set_artifacts(number, found)
    assert store.artifacts(number) == found
    assert (store.record(number).outputs_count, store.record(number).outputs_bytes) == (1, 1 << 41)
    assert [item.path for item in store.unhashed(10)] == ["model/ä.bin"]
    store.set_hashes([(number, "model/ä.bin", "ab" * 32)])
    assert store.unhashed(10) == []
    metrics = [MetricRecord(number, "loss", step, 1 / (step + 1), 1.5) for step in range(3)]
    store.add_metrics(number, metrics[:2], 0, 100)
    store.add_metrics(number, metrics[:2], 0, 100)  # somebody else did it before
    store.add_metrics(number, metrics[2:], 100, 150)
    assert [item for _, item in store.metrics_after(number, 0, 100)] == metrics
    assert store.last_steps(number) == {"loss": 2}


# -- many writers ---------------------------------------------------------------------------------------------------

WRITE = """
import sys
from pathlib import Path
from orchestrator.spec.run import RunSpec
from orchestrator.store import NewRun, Store
from orchestrator.store.database import Database

store = Store(Database(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    number = store.add(NewRun(RunSpec(command="true", labels=("process",)), "process", 1, None, 0))
    store.notice(number, "written")
    print(number, flush=True)
"""


def test_f45_concurrent_writers(store: Store, path: Path) -> None:
    """Six threads and two more processes write at once; each write is there, once, and no number was given twice."""
    processes = [python(WRITE, str(path), "25") for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    begin = threading.Barrier(7)

    def write() -> list[int]:
        begin.wait()
        numbers = [add(store, labels=("thread",)) for _ in range(25)]
        for number in numbers:
            store.notice(number, "written")
        return numbers

    with ThreadPoolExecutor(6) as pool:
        threads = [pool.submit(write) for _ in range(6)]
        begin.wait()
        outputs = [process.communicate("go\n", timeout=120)[0] for process in processes]
        numbers = [number for thread in threads for number in thread.result()]
    assert [process.returncode for process in processes] == [0, 0]
    numbers += [int(line) for output in outputs for line in output.split()]
    assert sorted(numbers) == list(range(1, 201))
    assert len(store.summaries(Filter(labels=["process"]), limit=1000)) == 50
    assert len(store.summaries(Filter(labels=["thread"]), limit=1000)) == 150
    for number in numbers:
        assert [event.text for event in store.events(number)] == ["", "written"]
    assert_sound(path)


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    return make_shared("store", config="[machine_types.whole]\ncpus = 1\n")


def test_f45_concurrent_requests_of_writers(shared: Spell) -> None:
    """Sixteen clients cast, stop and read at once while another process holds the file for a while: no request fails,
    and no update is lost."""
    blockers = [shared.cast("sleep 1000") for _ in range(8)]
    wait_for(lambda: len(shared.client.runs.list(Filter(states=["running"]))), "the machine is taken")
    first = blockers[-1] + 1

    def cast_and_stop(index: int) -> list[int]:
        with Client(shared.home, start=False) as client:
            mine = []
            for turn in range(6):
                spec = RunSpec(command="true", name=f"client-{index}", labels=(f"turn-{turn}",))
                mine.append(client.runs.cast(spec).number)
                assert client.runs.get(str(mine[-1])).name == f"client-{index}"
                assert mine[-1] in [run.number for run in client.runs.list(Filter(name=f"client-{index}"))]
            for number in mine[::2]:
                client.runs.stop(str(number))
        return mine

    with ThreadPoolExecutor(16) as pool:
        clients = [pool.submit(cast_and_stop, index) for index in range(16)]
        wait_for(lambda: shared.client.runs.list(limit=1)[0].number > first + 10, "the clients are at work")
        with raw(shared.home.database) as other:
            other.execute("BEGIN IMMEDIATE")
            held_until = time.monotonic() + 0.5
            wait_for(lambda: time.monotonic() > held_until, "others have waited")
        numbers = {index: client.result() for index, client in enumerate(clients)}
    every = sorted(number for mine in numbers.values() for number in mine)
    assert every == list(range(first, first + 96))
    for index, mine in numbers.items():
        for turn, number in enumerate(mine):
            run = shared.client.runs.get(str(number))
            assert (run.name, run.labels) == (f"client-{index}", [f"turn-{turn}"])
            assert run.state == ("killed" if turn % 2 == 0 else "machine_requested")
            events = [event.state for event in shared.client.runs.events(str(number))]
            assert events == ["machine_requested", "stopping", "killed"][: 3 if turn % 2 == 0 else 1]
    assert "Traceback" not in shared.home.server_log.read_text()
    assert_sound(shared.home.database)


@pytest.mark.server
def test_f45_another_program_holds_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For longer than anybody waits: a request is refused with words; a run that ends meanwhile waits, and loses nothing."""
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_S", 0.1)
    gate = tmp_path / "gate"
    with serving(tmp_path / "home", {"process": ProcessExecutor()}, machine.detect()) as client:
        home = Home(tmp_path / "home")
        command = f"echo up; until [ -e {gate} ]; do sleep 0.02; done; echo out > out.txt"
        number = client.runs.cast(RunSpec(command=command)).number
        wait_for(lambda: home.log(number).exists() and home.log(number).read_bytes(), "the command")
        wait_for(lambda: client.runs.get(str(number)).state == "running", "running")
        with raw(home.database) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusy, match="Another program holds"):
                client.runs.cast(RunSpec(command="true"))
            gate.touch()
            wait_for((home.attempt_dir(number, 1) / "verdict.json").exists, "the verdict")
            with pytest.raises(StoreBusy):
                client.runs.kill(str(number))
            assert client.runs.get(str(number)).state == "running"
        assert client.runs.wait(str(number), 30).state == "complete"
        assert (home.run_dir(number) / "out.txt").read_text() == "out\n"
        assert client.runs.get(str(number)).wish is None
        assert client.runs.cast(RunSpec(command="true")).number == number + 1


def test_f45_write_ahead_log_is_bounded(store: Store, path: Path) -> None:
    number = add(store)
    wal, text = path.with_name(path.name + "-wal"), "x" * 30_000

    def largest(turns: int) -> int:
        sizes = []
        for _ in range(turns):
            store.notice(number, text)
            store.events(2**62)
            sizes.append(wal.stat().st_size)
        return max(sizes)

    bound = 8 << 20
    assert largest(400) < bound  # 12 MB of text
    with raw(path) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        largest(200)  # a reader holds it up …
    store.notice(number, "x")
    settled = wal.stat().st_size
    assert largest(300) <= max(settled, bound)  # … and when it is gone, the log is used again from its start
    assert len(store.events(number)) == 902


CRASH = """
import sys
from pathlib import Path
from sqlalchemy import insert
from orchestrator.spec.run import RunSpec
from orchestrator.store import NewRun, Store
from orchestrator.store.database import Database

database = Database(Path(sys.argv[1]))
store = Store(database)
if sys.argv[2] == "inside":
    number = store.add(NewRun(RunSpec(command="kept"), "process", 1, None, 0))
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE runs SET command = 'half'")
        connection.exec_driver_sql("PRAGMA cache_spill = 1")
        for _ in range(500):
            connection.exec_driver_sql(f"INSERT INTO events (run, at, kind, state, text) VALUES ({number}, 0, 'notice', '', '{'x' * 20000}')")
        print(number, flush=True)
        sys.stdin.readline()
while True:
    number = store.add(NewRun(RunSpec(command="acknowledged", labels=("a", "b")), "process", 1, None, 0))
    print(number, flush=True)
"""


def test_f45_killed_inside_a_transaction(path: Path) -> None:
    with python(CRASH, str(path), "inside") as writer:
        assert writer.stdout is not None
        number = int(writer.stdout.readline())
        writer.kill()
    assert_sound(path)
    store = Store(Database(path))
    assert store.record(number).command == "kept"
    assert len(store.events(number)) == 1
    assert add(store) == number + 1


def test_f45_killed_at_any_moment(path: Path) -> None:
    """What a writer said it had written is there, whole, whenever it is killed."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    told: list[int] = []
    for _ in range(3):
        with python(CRASH, str(path), "again") as writer:
            assert writer.stdout is not None
            told += [int(writer.stdout.readline()) for _ in range(chance.randint(1, 40))]
            writer.kill()
            rest = writer.stdout.read()
            told += [int(line) for line in rest[: rest.rfind("\n") + 1].split()]
        assert_sound(path)
    store = Store(Database(path))
    runs = {run.number: run for run in store.summaries(limit=10_000)}
    assert set(told) <= set(runs)
    assert len(runs) - len(told) <= 3 + 3  # of each kill at most the one whose number was still on its way
    for number, run in runs.items():
        assert run.labels == ["a", "b"]
        assert len(store.events(number)) == 1


# -- migrations -----------------------------------------------------------------------------------------------------


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config)


def schema(path: Path) -> dict[str, str]:
    with raw(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: " ".join(sql.split()) for name, sql in rows if name != "alembic_version"}


def test_head_is_the_newest_migration() -> None:
    assert scripts().get_heads() == [store_tables.HEAD]
    assert [script.revision for script in reversed(list(scripts().walk_revisions()))] == sorted(
        path.name[:4] for path in (MIGRATIONS / "versions").glob("*.py")
    )


def is_ours(_item: object, name: str, kind: str, _reflected: bool, _compared: object) -> bool:
    """SQLAlchemy knows no virtual tables; `schema` sees them."""
    return kind != "table" or not name.startswith("runs_text")


def test_migrations_make_the_tables(path: Path, tmp_path: Path) -> None:
    """A new store is made without them; it has the same."""
    upgrade(path, None)
    with create_engine(f"sqlite:///{path}").connect() as connection:
        opts = {"compare_type": True, "compare_server_default": True, "include_object": is_ours}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, store_tables.metadata) == []
    fresh = tmp_path / "fresh.db"
    Database(fresh).close()
    made = schema(path)
    assert {name for name, sql in made.items() if "AUTOINCREMENT" in sql} == {
        name for name, sql in schema(fresh).items() if "AUTOINCREMENT" in sql
    }
    assert set(made) == set(schema(fresh))
    for place in (path, fresh):
        with raw(place) as store:
            assert store.execute("SELECT * FROM alembic_version").fetchall() == [(store_tables.HEAD,)]


KILLED_WHILE_MIGRATING = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import Engine, event
from orchestrator.store.database import Database

@event.listens_for(Engine, "before_cursor_execute")
def _die(connection, cursor, statement, *rest):
    if sys.argv[2] in statement:
        os.kill(os.getpid(), signal.SIGKILL)

Database(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("moment", ["CREATE TABLE metrics", "INTO alembic_version"])
def test_killed_while_the_store_is_made(path: Path, moment: str) -> None:
    with python(KILLED_WHILE_MIGRATING, str(path), moment) as process:
        process.communicate(timeout=60)
    assert process.returncode == -9
    assert_sound(path)
    store = Store(Database(path))
    assert store.record(add(store)).state == "machine_requested"
    assert_sound(path)


def old_stores() -> list[Path]:
    return sorted(DATA.glob("store-*.db"))


@pytest.fixture
def old_copy(path: Path, request: pytest.FixtureRequest) -> Path:
    shutil.copy(request.param, path)
    return path


def test_there_is_a_store_of_every_older_version() -> None:
    older = {script.revision for script in scripts().walk_revisions()} - {store_tables.HEAD}
    assert older <= {path.stem.removeprefix("store-") for path in old_stores()}


@pytest.mark.parametrize("old_copy", old_stores(), ids=lambda path: path.stem, indirect=True)
def test_an_old_store_opens(old_copy: Path) -> None:
    store = Store(Database(old_copy))
    assert_sound(old_copy)
    assert [(run.number, run.name, run.state, run.exit_code, run.labels) for run in store.summaries()] == [
        (1, "first", "complete", 0, ["kept", "old"]),
        (2, "", "failed", 3, []),
        (3, "waiting", "machine_requested", None, ["old"]),
    ]
    first, second = store.record(1), store.record(2)
    assert (first.reason, first.description, first.outputs_count) == ("exited_zero", "writes data", 1)
    assert first.spec["env"] == {"COLOUR": "blue"}
    assert first.mounted_by == [2]
    assert (second.command, second.message) == ("cat data.txt; exit 3", "the command ended with exit code 3")
    assert second.mounts == [{"resource": "runs/1/data.txt", "path": "data.txt"}]
    assert [event.state for event in store.events(2)] == [
        "machine_requested", "building", "mounting", "running", "saving", "pushing", "failed",
    ]  # fmt: skip
    assert [(item.path, item.size, bool(item.sha256)) for item in store.artifacts(1)] == [("data.txt", 6, True)]
    assert [(item.step, item.value) for _, item in store.metrics_after(1, 0, 100)] == [(0, 1.0), (1, 0.5), (2, 0.25)]
    assert len(store.samples(1)) == 1
    assert store.find("latest") == 3
    assert add(store) == 4
    with raw(old_copy) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (store_tables.HEAD,)


@pytest.mark.parametrize("old", old_stores(), ids=lambda path: path.stem)
def test_a_run_in_the_queue_of_an_old_store_runs(make_spell: Callable[..., Spell], old: Path) -> None:
    spell = make_spell()
    spell.home.create()
    shutil.copy(old, spell.home.database)
    assert spell.ended(3).state == "complete"
    assert (spell.home.run_dir(3) / "late.txt").read_text() == "waited\n"
    assert [run["number"] for run in spell("ps", "--json").json()] == [1, 2, 3]


def test_a_store_of_a_newer_version_is_refused(path: Path, make_spell: Callable[..., Spell]) -> None:
    Database(path).close()
    with raw(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    with pytest.raises(HomeUnusable, match=r"made by a newer version of spell \(store version 9999\)") as caught:
        Database(path)
    assert "Upgrade" in caught.value.cure
    assert path.read_bytes() == before
    spell = make_spell()
    spell.home.create()
    shutil.copy(path, spell.home.database)
    done = spell("ps")
    assert done.code == 1
    assert "made by a newer version of spell" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "content", [b"not a database, but a text\n" * 100, b"SQLite format 3\0" + bytes(range(256)) * 40]
)
def test_what_is_no_store_is_refused(path: Path, make_spell: Callable[..., Spell], content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(HomeUnusable, match=r"The store .*spell\.db cannot be opened: ") as caught:
        Database(path)
    assert caught.value.cure
    assert path.read_bytes() == content
    spell = make_spell()
    spell.home.create()
    shutil.copy(path, spell.home.database)
    done = spell("ps")
    assert done.code == 1
    assert "cannot be opened" in done.err
    assert "Traceback" not in done.err


def test_another_programs_database_is_refused(path: Path) -> None:
    """A good SQLite file that holds a table of one of our names."""
    with raw(path) as connection:
        connection.execute("CREATE TABLE runs (miles REAL)")
        connection.execute("INSERT INTO runs VALUES (26.2)")
    with pytest.raises(HomeUnusable):
        Database(path)
    with raw(path) as connection:
        assert connection.execute("SELECT * FROM runs").fetchall() == [(26.2,)]
        assert json.dumps(list(schema(path))) == '["runs"]'


def test_a_column_that_there_is_not_is_refused(store: Store) -> None:
    number = add(store)
    run = store.claim(number, [])
    assert run is not None
    with pytest.raises(TypeError, match="enviroment"):
        store.update(number, run.fence, image="i", enviroment="lost")
    with pytest.raises(TypeError, match="enviroment"):
        store.move(number, run.fence, State.RUNNING, enviroment="lost")
    assert store.record(number).image is None
    assert store.record(number).state == "building"
