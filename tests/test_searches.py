"""Searches over parameters: each trial is cast once, whatever fails, dies or is ended meanwhile.

A command that waits does so for a file outside of the home; one that counts its executions appends a line to such a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Spell, wait_for

from orchestrator import machine
from orchestrator.client.searches import Searches
from orchestrator.controllers import searches as server_searches
from orchestrator.controllers import workflows as server_workflows
from orchestrator.controllers.bayesian import SAMPLER, Tried, suggest
from orchestrator.errors import Conflict, DiskFull, ExecutorFailed, InvalidConfig, NotFound, SnapshotMissing, SpellError
from orchestrator.records.searches import SearchRecord, TrialRecord
from orchestrator.service import Who
from orchestrator.spec.mounts import parse_mount
from orchestrator.spec.run import Code, RunSpec
from orchestrator.spec.search import Choice, Range, SearchSpec
from orchestrator.spec.workflow import Step, WorkflowSpec
from orchestrator.states import FINAL, StopRequest
from orchestrator.store import NewRun, Store
from orchestrator.store.database import Database

CONFIG = f"""
grace_s = 1

[machine_types.cpu]
cpus = {machine.detect().cpus / 20}
"""
SEND = f"{sys.executable} -c 'import sys; from orchestrator.runtime import send_metric as s; %s' :x:"


@pytest.fixture
def own(make_spell: Callable[..., Spell]) -> Spell:
    """A fresh home, on whose machine many runs have room."""
    return make_spell(config=CONFIG)


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    """A home for all tests that leave nothing in the way."""
    return make_shared("searches", config=CONFIG)


def hyper(spell: Spell) -> Searches:
    return spell.client.searches


def grid(command: str, *values: str, **fields: Any) -> SearchSpec:
    """A search whose trials have these values for `:x:`."""
    spec = RunSpec(command, params={"x": values[0]})
    return SearchSpec(kind="grid", spec=spec, space={"x": Choice(values)}, **fields)


def cast(spell: Spell, command: str, *values: str, **fields: Any) -> int:
    return hyper(spell).cast(grid(command, *values, **fields)).number


def ended(spell: Spell, number: int) -> SearchRecord:
    """The search, when it has ended."""

    def final() -> SearchRecord | None:
        found = hyper(spell).get(str(number))
        return found if found.state != "running" else None

    return wait_for(final, f"the end of search {number}", 60)


def trials(found: SearchRecord) -> dict[str, TrialRecord]:
    return {item.params["x"]: item for item in found.trials}


def states(found: SearchRecord) -> dict[str, str]:
    return {item.params["x"]: item.state for item in found.trials}


def reaches(spell: Spell, number: int, **wanted: str) -> SearchRecord:
    """The search, when the trials with these values are in these states."""

    def there() -> SearchRecord | None:
        found = hyper(spell).get(str(number))
        return found if wanted.items() <= states(found).items() else None

    return wait_for(there, f"{wanted} in search {number}")


def waiting_for(gate: Path) -> str:
    return f"while [ ! -e {gate} ]; do sleep 0.02; done"


def counting(folder: Path, then: str = "true") -> str:
    return f"echo :x: >> {folder}/count; {then}"


def counted(folder: Path) -> list[str]:
    """The trials that were run since the last time, sorted."""
    path = folder / "count"
    found = sorted(path.read_text().split()) if path.exists() else []
    path.unlink(missing_ok=True)
    return found


# -- what trials are --------------------------------------------------------------------------------------------------


def test_each_trial_is_a_run_with_its_parameters(shared: Spell) -> None:
    found = ended(shared, cast(shared, "echo got :x:", "a b", "1e-3"))
    assert (found.state, found.trials_complete, found.trials_cast, found.trials_count) == ("complete", 2, 2, 2)
    for trial in found.trials:
        run = shared.client.runs.get(str(trial.run))
        assert run.spec["params"] == trial.params
        assert run.command == f"echo got {trial.params['x']}"
        assert run.search == found.number
        assert shared.log(run.number) == f"got {trial.params['x']}\n".encode()
    shown = shared("info", str(found.trials[0].run)).out.splitlines()
    told = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in shown}
    assert (told["Search"], told["Parameters"]) == (str(found.number), "x=a b")
    assert shared.run("true").search is None


@pytest.mark.parametrize(
    ("aggregate", "direction", "best", "value"),
    [
        ("last", "minimize", "1", 2.0),
        ("last", "maximize", "5", 10.0),
        ("min", "maximize", "5", 5.0),
        ("max", "minimize", "3", 6.0),
        ("avg", "minimize", "3", 5.0),
    ],
)
def test_the_best_trial(shared: Spell, aggregate: str, direction: str, best: str, value: float) -> None:
    # 1 sends 1, 9, 2; 3 sends 3, 6, 6; 5 sends 5, 10, 10
    send = SEND % '[s("loss", v * int(sys.argv[1])) for v in ((1, 9, 2) if sys.argv[1] == "1" else (1, 2, 2))]'
    if aggregate in ("max", "avg"):
        send = SEND % '[s("loss", v) for v in {"1": (1, 20, 2), "3": (3, 6, 6), "5": (5, 10, 10)}[sys.argv[1]]]'
    number = cast(shared, send, "1", "3", "5", metric="loss", metric_agg=aggregate, direction=direction)
    found = ended(shared, number)
    assert (trials(found)[best].run, trials(found)[best].value) == (found.best_run, found.best_value)
    assert found.best_value == value


def test_failed_trials_do_not_count_and_stopped_ones_do(shared: Spell, tmp_path: Path) -> None:
    then = f'x = sys.argv[1]; s("loss", int(x)); open("{tmp_path}/" + x, "w"); x == "1" and sys.exit(1)'
    number = cast(shared, f"{SEND % then}; [ :x: = 2 ] && {waiting_for(tmp_path / 'never')} || true", "1", "2", "3")
    # without a metric nothing is compared
    wait_for((tmp_path / "2").exists, "the metric of trial 2")
    shared.client.runs.stop(str(trials(hyper(shared).get(str(number)))["2"].run))
    assert (ended(shared, number).best_run, ended(shared, number).metric) == (None, "")
    (tmp_path / "2").unlink()

    command = f"{SEND % then} || exit 1; [ :x: = 2 ] && {waiting_for(tmp_path / 'never')}; true"
    number = cast(shared, command, "1", "2", "3", metric="loss")
    wait_for((tmp_path / "2").exists, "the metric of trial 2")
    shared.client.runs.stop(str(trials(reaches(shared, number, **{"2": "running"}))["2"].run))
    found = ended(shared, number)
    assert states(found) == {"1": "failed", "2": "stopped", "3": "complete"}
    assert [item.value for item in found.trials] == [None, 2.0, 3.0]
    assert (found.best_run, found.best_value) == (trials(found)["2"].run, 2.0)
    with_failed = hyper(shared).resume(str(number))
    assert states(with_failed)["2"] == "stopped", "which was somebody's request"
    ended(shared, number)


def test_a_metric_that_nobody_sends_is_told(shared: Spell) -> None:
    found = ended(shared, cast(shared, SEND % 's("acc", 1); s("lr", 2)', "1", "2", metric="loss"))
    assert found.message == "No trial sent the metric 'loss'. They sent these: acc, lr."
    assert {item.message for item in found.trials} == {"it did not send the metric 'loss'"}
    assert (found.state, found.best_run) == ("complete", None)


def test_no_more_at_a_time_than_asked(shared: Spell, tmp_path: Path) -> None:
    number = cast(shared, waiting_for(tmp_path / ":x:"), *"12345", parallel=2)
    wait_for(lambda: len(hyper(shared).get(str(number)).trials) == 2, "two trials")
    (tmp_path / "2").touch()
    found = reaches(shared, number, **{"2": "complete", "3": "running"})
    assert states(found) == {"1": "running", "2": "complete", "3": "running"}
    for name in "1345":
        (tmp_path / name).touch()
    assert ended(shared, number).trials_complete == 5


def test_the_same_seed_tries_the_same(shared: Spell) -> None:
    spec = RunSpec("true :x:", params={"x": "1"})
    search = SearchSpec(kind="random", spec=spec, space={"x": Range(0, 1)}, runs=3, seed=11)
    first, again = (ended(shared, hyper(shared).cast(search).number) for _ in "12")
    assert [item.params for item in first.trials] == [item.params for item in again.trials]
    other = SearchSpec(kind="random", spec=spec, space={"x": Range(0, 1)}, runs=3)
    third = ended(shared, hyper(shared).cast(other).number)
    assert third.seed is not None
    assert [item.params for item in third.trials] != [item.params for item in first.trials]


def test_a_bayesian_search_learns_from_its_trials(shared: Spell) -> None:
    send = SEND % 's("loss", (float(sys.argv[1]) - 0.3) ** 2)'
    spec = RunSpec(send, params={"x": "1"})
    search = SearchSpec(kind="bayesian", spec=spec, space={"x": Range(-9, 9)}, runs=6, metric="loss", seed=5)
    found = ended(shared, hyper(shared).cast(search).number)
    values = {item.number: (float(item.params["x"]) - 0.3) ** 2 for item in found.trials}
    assert {item.number: item.value for item in found.trials} == pytest.approx(values)
    assert found.best_value == pytest.approx(min(values.values()))
    tried = [Tried(item.params, item.value) for item in found.trials]
    wanted = [suggest(search, number, tried[: number - 1]) for number in range(1, 7)]
    assert [item.params for item in found.trials] == wanted, "each from all before it"
    assert wanted[5] != suggest(search, 6, []), "which makes a difference"
    assert found.samplers == {"1": SAMPLER}


def test_a_search_that_goes_on_under_another_sampler_says_so(shared: Spell) -> None:
    """As after an upgrade of Optuna between two trials."""
    spec = RunSpec(SEND % 's("loss", float(sys.argv[1]))', params={"x": "1"})
    search = SearchSpec(kind="bayesian", spec=spec, space={"x": Range(0, 1)}, runs=1, metric="loss", seed=5)
    number = ended(shared, hyper(shared).cast(search).number).number
    older = {"runs": 2, "count": 2, "samplers": {"1": "TPESampler() of optuna 4.5.0"}}
    with contextlib.closing(sqlite3.connect(shared.home.root / "store" / "spell.db")) as store, store:
        (settings,) = store.execute("SELECT settings FROM searches WHERE id = ?", [number]).fetchone()
        store.execute(
            "UPDATE searches SET settings = ? WHERE id = ?", [json.dumps(json.loads(settings) | older), number]
        )
    done = shared("hyper", "resume", str(number))
    assert (done.code, "was upgraded before trial 2 of search" in done.err) == (0, True), done
    assert hyper(shared).get(str(number)).samplers == {**older["samplers"], "2": SAMPLER}
    info = shared("hyper", "info", str(number))
    assert f"TPESampler() of optuna 4.5.0; from trial 2: {SAMPLER}\n" in info.out and "was upgraded" in info.err


def test_reuse_takes_what_is_complete(shared: Spell, tmp_path: Path) -> None:
    first = ended(shared, cast(shared, counting(tmp_path), "1", "2"))
    counted(tmp_path)
    found = ended(shared, cast(shared, counting(tmp_path), "2", "3", "1", reuse=True))
    assert counted(tmp_path) == ["3"]
    assert [trials(found)[x].run for x in "12"] == [trials(first)[x].run for x in "12"]


# -- failing ----------------------------------------------------------------------------------------------------------


def test_f49_a_failing_trial_stops_nothing_and_only_it_is_run_again(shared: Spell, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    command = counting(tmp_path, f"[ :x: != 2 ] || [ -e {mended} ] || exit 3")
    number = cast(shared, command, *"1234", parallel=1)
    found = ended(shared, number)
    assert (found.state, found.trials_complete) == ("complete", 3)
    assert states(found) == {"1": "complete", "2": "failed", "3": "complete", "4": "complete"}
    assert (trials(found)["2"].exit_code, trials(found)["2"].message) == (3, "the command ended with exit code 3")
    assert counted(tmp_path) == list("1234")

    mended.touch()
    before = trials(found)
    assert states(hyper(shared).resume(str(number)))["2"] in ("waiting", "machine_requested", "running")
    found = ended(shared, number)
    assert (found.state, found.trials_complete) == ("complete", 4)
    assert counted(tmp_path) == ["2"], "only what had failed"
    assert [x for x in "1234" if trials(found)[x].run != before[x].run] == ["2"]
    with pytest.raises(Conflict, match="nothing to resume"):
        hyper(shared).resume(str(number))


def test_a_search_of_which_nothing_is_complete_has_failed(shared: Spell) -> None:
    found = ended(shared, cast(shared, "exit :x:", "1", "2"))
    assert (found.state, found.trials_complete) == ("failed", 0)


def test_a_trial_that_cannot_be_cast_fails_with_words(own: Spell, tmp_path: Path) -> None:
    """What it mounts goes away while the search goes on."""
    run = own.run("echo 1 > data.txt")
    spec = RunSpec(
        waiting_for(tmp_path / ":x:"), params={"x": "1"}, mounts=(parse_mount(f"runs/{run.number}/data.txt"),)
    )
    search = SearchSpec(kind="grid", spec=spec, space={"x": Choice(("1", "2"))}, parallel=1)
    number = hyper(own).cast(search).number
    reaches(own, number, **{"1": "running"})
    file = own.home.run_dir(run.number) / "data.txt"
    file.parent.chmod(0o755)
    file.rename(tmp_path / "away")
    (tmp_path / "1").touch()
    (tmp_path / "2").touch()
    found = ended(own, number)
    assert states(found) == {"1": "complete", "2": "failed"}
    assert trials(found)["2"].run is None
    assert "Cannot mount resource" in trials(found)["2"].message
    (tmp_path / "away").rename(file)
    hyper(own).resume(str(number))
    assert states(ended(own, number)) == {"1": "complete", "2": "complete"}


# -- the server dies --------------------------------------------------------------------------------------------------


def test_f49_a_killed_server_resumes_its_search(own: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    number = cast(own, counting(tmp_path, waiting_for(gate)), *"123456", parallel=2)
    reaches(own, number, **{"1": "running", "2": "running"})
    own.kill_server()
    gate.touch()
    found = ended(own, number)
    assert (found.state, found.trials_complete) == ("complete", 6)
    assert counted(tmp_path) == list("123456"), "each once"
    assert len(own.client.runs.list()) == 6


def test_f49_a_server_that_is_killed_at_any_moment_runs_each_trial_once(own: Spell, tmp_path: Path) -> None:
    values = [f"v{index:02}" for index in range(12)]
    number = cast(own, counting(tmp_path), *values, parallel=3)
    for kill in range(4):
        own.client.server.get()  # which is started by it
        at = time.monotonic() + kill * 0.05
        wait_for(lambda at=at: time.monotonic() >= at, "another moment each time")
        own.kill_server()
    found = ended(own, number)
    assert (found.state, found.trials_complete) == ("complete", 12)
    assert counted(tmp_path) == values, "none twice, none lost"
    assert sorted(item.run or 0 for item in found.trials) == list(range(1, 13))
    assert len(own.client.runs.list(limit=100)) == 12


def test_f49_a_search_that_was_stopped_by_a_dying_server_resumes(own: Spell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    number = cast(own, counting(tmp_path, waiting_for(gate)), *"1234", parallel=2)
    reaches(own, number, **{"1": "running", "2": "running"})
    hyper(own).stop(str(number))
    own.kill_server()
    found = ended(own, number)
    assert (found.state, states(found)) == ("stopped", {"1": "stopped", "2": "stopped"})
    counted(tmp_path)
    gate.touch()
    hyper(own).resume(str(number))
    own.kill_server()
    found = ended(own, number)
    assert (found.state, found.wish, found.trials_complete) == ("complete", None, 4)
    assert counted(tmp_path) == list("1234")


# -- the store --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of its own, without a server."""
    return Store(Database(tmp_path / "spell.db"))


def add_run(store: Store, number: int, trial: int) -> int:
    """Cast a trial as the server does."""
    new = NewRun(RunSpec("true"), "process", 1.0, None, 0)
    params = {"x": str(trial)}
    return store.add(new, lambda connection, run: store.searches.cast(connection, number, trial, params, run))


def test_a_run_and_its_trial_are_recorded_together_or_not_at_all(store: Store) -> None:
    number = store.searches.add(grid("true :x:", *"123"))
    first = add_run(store, number, 1)
    with pytest.raises(Conflict, match="can no longer be cast"):
        add_run(store, number, 1)
    store.searches.request_stop(number, StopRequest.STOP)
    with pytest.raises(Conflict, match="can no longer be cast"):
        add_run(store, number, 2)
    store.searches.settle_uncast(number, 2, {"x": "2"}, server_searches.TrialState.FAILED, message="no")
    assert [run.number for run in store.summaries()] == [first]
    assert [item.run for item in store.searches.record(number).trials] == [first]


class Service:
    """Casts runs that nobody runs, unless `refusal` says otherwise."""

    def __init__(self, store: Store) -> None:
        self.runs, self.store = self, store
        self.refusal: dict[str, Exception] = {}

    def cast(self, _who: Who, spec: RunSpec, *, with_run: Any, **_options: Any) -> Any:
        if refused := self.refusal.get(spec.command):
            raise refused
        number = self.store.add(NewRun(spec, "process", 1.0, None, 0), with_run)
        return type("Cast", (), {"number": number, "reused": False})


def test_two_that_lead_a_search_at_once_cast_each_trial_once(store: Store) -> None:
    """Each looks at the search before the other has cast: as two servers might, or a server and a late thread of another."""
    first, second = (server_searches.SearchController(store, Service(store), lambda: None) for _ in "12")  # type: ignore[arg-type]
    number = store.searches.add(grid("true :x:", *"123"))
    for _ in range(5):
        seen = store.searches.stored(number)
        first._lead(seen)
        second._lead(seen)
    assert [run.number for run in store.summaries()] == [1, 2, 3]
    assert [item.run for item in store.searches.record(number).trials] == [1, 2, 3]
    assert {item.state for item in store.searches.record(number).trials} == {"machine_requested"}


def test_one_search_that_cannot_be_led_holds_up_no_other(store: Store) -> None:
    service = Service(store)
    service.refusal = {"1 :x:": OSError(), "2 :x:": InvalidConfig("It cannot be.", "Cure it.")}
    for number in (1, 2):
        assert store.searches.add(grid(f"{number} :x:", "a")) == number
    with pytest.raises(ExceptionGroup):
        server_searches.SearchController(store, service, lambda: None).advance()  # type: ignore[arg-type]
    assert [store.searches.record(number).state for number in (1, 2)] == ["running", "failed"]
    assert store.searches.record(2).trials[0].message == "It cannot be. Cure it."


def test_an_engine_that_is_away_fails_no_trial_and_no_step(store: Store) -> None:
    service = Service(store)
    service.refusal = {"true :x:": ExecutorFailed("No engine answers."), "true": ExecutorFailed("No engine answers.")}
    number = store.searches.add(grid("true :x:", *"12"))
    flow = store.workflows.add(WorkflowSpec("flow", (Step("a", RunSpec("true")),)))
    searches = server_searches.SearchController(store, service, lambda: None)  # type: ignore[arg-type]
    flows = server_workflows.WorkflowController(store, service)  # type: ignore[arg-type]
    for _ in "12":
        for lead in (searches, flows):
            with pytest.raises(ExceptionGroup):
                lead.advance()
    found, step = store.searches.record(number), store.workflows.record(flow).steps[0]
    assert (found.state, found.message, found.trials) == ("running", "It waits: No engine answers.", [])
    assert (step.state, step.message) == ("waiting", "it waits: No engine answers.")
    service.refusal = {}
    for lead in (searches, flows):
        lead.advance()
    found, step = store.searches.record(number), store.workflows.record(flow).steps[0]
    assert (found.message, [item.run for item in found.trials]) == ("", [1, 2])
    assert (step.run, step.message) == (3, "")


def test_a_step_that_waits_holds_up_no_other_of_its_workflow(store: Store) -> None:
    service = Service(store)
    service.refusal = {"away": ExecutorFailed("No engine answers.")}
    steps = (Step("a", RunSpec("away")), Step("b", RunSpec("true")), Step("c", RunSpec("away")))
    flow = store.workflows.add(WorkflowSpec("flow", steps))
    with pytest.raises(ExceptionGroup):
        server_workflows.WorkflowController(store, service).advance()  # type: ignore[arg-type]
    found = {step.name: step for step in store.workflows.record(flow).steps}
    assert found["b"].run == 1
    assert {found[name].message for name in "ac"} == {"it waits: No engine answers."}


def test_no_room_is_waited_for_and_said(store: Store) -> None:
    service = Service(store)
    service.refusal = {"true :x:": DiskFull("The home takes too much.")}
    number = store.searches.add(grid("true :x:", "1"))
    with pytest.raises(ExceptionGroup):
        server_searches.SearchController(store, service, lambda: None).advance()  # type: ignore[arg-type]
    found = store.searches.record(number)
    assert (found.state, found.message) == ("running", "It waits: The home takes too much.")


def test_a_search_that_this_version_cannot_read_ends(store: Store) -> None:
    number = store.searches.add(grid("true :x:", "1"))
    with store._db.write() as connection:
        connection.exec_driver_sql("UPDATE searches SET spec = json_set(spec, '$.name', 'not a name/')")
    server_searches.SearchController(store, Service(store), lambda: None).advance()  # type: ignore[arg-type]
    found = store.searches.record(number)
    assert found.state == "failed" and found.message.startswith("This version cannot read the spec of the search: ")


def test_the_executor_is_that_of_the_moment_of_casting(own: Spell) -> None:
    """One that cannot run anything later is waited for: no trial goes elsewhere."""
    found = hyper(own).cast(grid("true :x:", "1"))
    assert hyper(own).get(str(found.number)).number == found.number
    with contextlib.closing(sqlite3.connect(own.home.database)) as raw:
        (spec,) = raw.execute("SELECT spec FROM searches").fetchone()
    assert json.loads(spec)["executor"] == "process"


def test_many_values_are_checked_fast() -> None:
    values = tuple(map(str, range(10_000)))
    began = time.monotonic()
    assert grid("true :x:", *values).count == 10_000
    assert time.monotonic() - began < 3
    with pytest.raises(InvalidConfig, match="'7' is given twice"):
        Choice((*values, "7"))


def test_the_value_of_a_trial_is_that_of_its_last_attempt(own: Spell) -> None:
    command = (
        SEND
        % 'import os; first = os.environ["SPELL_ATTEMPT"] == "1"; s("loss", 0.001 if first else 5); sys.exit(first)'
    )
    for way, value in (("min", 5.0), ("avg", 5.0), ("last", 5.0)):
        search = grid(command, "1", metric="loss", metric_agg=way)
        search = dataclasses.replace(search, spec=dataclasses.replace(search.spec, retries=1))
        number = hyper(own).cast(search).number
        found = wait_for(lambda: (seen := hyper(own).get(str(number))).state != "running" and seen, "its end")  # noqa: B023
        assert [trial.value for trial in found.trials] == [value], way


# -- ending -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "state"), [("stop", "stopped"), ("kill", "killed")])
def test_stop_and_kill(shared: Spell, tmp_path: Path, verb: str, state: str) -> None:
    command = f"echo kept > x.txt; touch {tmp_path}/b-:x:; {waiting_for(tmp_path / ':x:')}"
    number = cast(shared, command, *"1234", parallel=2)
    (tmp_path / "1").touch()
    found = reaches(shared, number, **{"1": "complete", "2": "running", "3": "running"})
    wait_for(lambda: (tmp_path / "b-2").exists() and (tmp_path / "b-3").exists(), "what the commands write")
    done = shared("hyper", verb, str(number))
    assert done.code == 0, done
    assert done.out.startswith(f"{'Stopping' if verb == 'stop' else 'Killing'} search {number}.")
    found = ended(shared, number)
    assert (found.state, found.wish) == (state, verb)
    assert states(found) == {"1": "complete", "2": state, "3": state}, "no further trial was cast"
    assert (shared.home.run_dir(trials(found)["2"].run or 0) / "x.txt").exists() == (verb == "stop")
    again = shared("hyper", verb, str(number))
    assert (again.code, f"Search {number} is already finished: {state}." in again.err) == (1, True)
    for name in "234":
        (tmp_path / name).touch()
    hyper(shared).resume(str(number))
    found = ended(shared, number)
    assert (found.state, found.wish, set(states(found).values())) == ("complete", None, {"complete"})


def test_a_search_that_goes_on_is_not_resumed(shared: Spell, tmp_path: Path) -> None:
    number = cast(shared, f"true :x:; {waiting_for(tmp_path / 'gate')}", "1")
    with pytest.raises(Conflict, match="is running"):
        hyper(shared).resume(str(number))
    hyper(shared).kill(str(number))
    assert ended(shared, number).state == "killed"


def test_a_stop_request_while_trials_are_cast(shared: Spell) -> None:
    number = cast(shared, "sleep 600; true :x:", *map(str, range(400)))
    wait_for(lambda: hyper(shared).get(str(number)).trials, "the first trial")
    hyper(shared).kill(str(number))
    found = ended(shared, number)
    assert found.state == "killed"
    assert [item.state for item in found.trials if item.state != "killed"] == []
    runs = [shared.client.runs.get(str(item.run)).state for item in found.trials[-3:]]
    assert set(runs) <= FINAL


# -- the API ----------------------------------------------------------------------------------------------------------


def test_the_api_refuses_what_makes_no_sense(shared: Spell) -> None:
    def refused(**changes: Any) -> str:
        body = {
            "kind": "grid",
            "spec": {"command": "true :x:", "params": {"x": "1"}},
            "space": {"x": {"values": ["1", "2"]}},
        } | changes
        with pytest.raises(SpellError) as caught:
            shared.client.transport.call("POST", "/searches", json=body)
        assert not isinstance(caught.value, Conflict)
        return caught.value.message

    assert "'colour'" in refused(colour=1)
    assert refused(space={})
    assert refused(space={"x": {"values": []}})
    assert refused(space={"x": {"values": "ab"}})
    assert refused(space={"x": {"values": [1]}})
    assert refused(space={"x": {"low": 1, "high": 0}})
    assert refused(space={"x": {"low": 0, "high": 10**400}})
    assert refused(space={"y": {"values": ["1"]}})
    assert refused(space=[1])
    assert refused(kind="random", runs="many")
    assert refused(kind=1)
    assert refused(spec={"command": "true"})
    assert refused(spec={"command": "true :x:", "params": {"x": "1"}, "machine_type": "giant"})
    assert refused(parallel=-1)
    for reference in ("77777", "no such", "1e3", "-1", "9" * 30):
        with pytest.raises(NotFound):
            hyper(shared).get(reference)
    with pytest.raises(SnapshotMissing):
        hyper(shared).cast(
            SearchSpec(
                kind="grid",
                spec=RunSpec("true :x:", params={"x": "1"}, code=Code("0" * 64)),
                space={"x": Choice(("1",))},
            )
        )
    assert hyper(shared).list(limit=1, before=1) == []
