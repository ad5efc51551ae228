"""Failed attempts are tried again: with their checkpoints, as often as asked, and only where that may help."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Spell, git, wait_for
from test_recovery import Gate, Tally, assert_legal
from wheels import make_broken_wheel

from orchestrator.content.files import remove_tree
from orchestrator.data.blobs import BlobStore
from orchestrator.errors import InvalidConfig
from orchestrator.home import Home
from orchestrator.lifecycle import retry, workdir
from orchestrator.spec.run import RunSpec
from orchestrator.spec.validate import read_spec
from orchestrator.store import NewRun, Store
from orchestrator.store.database import Database

CONFIG = """
grace_s = 1

[machine_types.cpu]
cpus = 0.1
"""
CHECKPOINT = 'mkdir -p "$SPELL_CHECKPOINT_DIR"; cd "$SPELL_CHECKPOINT_DIR"'
RESUMES = f"{CHECKPOINT}; n=$(cat step 2>/dev/null || echo 0); echo $((n + 1)) > step; echo step $n; [ $n = 2 ]"
"""Fails twice; each attempt goes on from the checkpoint of the one before."""


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    return make_shared("retries", config=CONFIG)


@pytest.fixture
def spell(shared: Spell) -> Iterator[Spell]:
    """A home that the tests of this module share; each leaves it without active runs."""
    yield shared
    shared.clear()


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def notices(spell: Spell, number: int) -> list[str]:
    return [event.text for event in spell.client.runs.events(str(number)) if event.kind == "notice"]


def pauses(spell: Spell, number: int) -> None:
    """Wait until an attempt of the run has failed, and make its pause so long that only we can end it."""
    wait_for(lambda: spell.client.runs.get(str(number)).attempts, "a failed attempt")
    with contextlib.closing(sqlite3.connect(spell.home.database)) as store:
        changed = store.execute("UPDATE runs SET not_before = ? WHERE number = ?", (time.time() + 55, number)).rowcount
        store.commit()
    assert changed
    assert spell.stored(number)[0] == "machine_requested"


# -- F48 ------------------------------------------------------------------------------------------------------------


def test_f48_an_attempt_resumes_from_the_checkpoint_of_the_failed_one(spell: Spell) -> None:
    run = spell.run(f"echo waste > waste$SPELL_ATTEMPT; {RESUMES}", retries=5)
    assert (run.state, run.attempt) == ("complete", 3)
    assert [(item.number, item.exit_code, item.reason) for item in run.attempts] == [
        (1, 1, "exited_nonzero"),
        (2, 1, "exited_nonzero"),
    ]
    assert all(item.started_at and item.ended_at and item.duration_s for item in run.attempts)
    assert run.duration_s is not None and run.started_at is not None and run.ended_at is not None
    last_s = json.loads((spell.home.attempt_dir(run.number, 3) / "verdict.json").read_text())["duration_s"]
    assert run.duration_s == pytest.approx(last_s + sum(item.duration_s or 0 for item in run.attempts))
    assert run.duration_s > last_s > 0
    assert spell.log(run.number) == b"step 0\n--- attempt 2 ---\nstep 1\n--- attempt 3 ---\nstep 2\n"
    kept = spell.home.run_dir(run.number)
    assert sorted(path.name for path in kept.iterdir()) == ["checkpoints", "waste3"], "otherwise its work dir is fresh"
    assert (kept / "checkpoints/step").read_text() == "3\n"
    assert notices(spell, run.number) == [
        "Attempt 1 failed: the command ended with exit code 1; trying again (1 of 5)",
        "Attempt 2 failed: the command ended with exit code 1; trying again (2 of 5)",
    ]
    assert_legal(spell, run.number)
    assert not spell.home.checkpoints(run.number).exists()
    wait_for(lambda: not spell.home.work_dir(run.number).exists(), "nothing of it in the work dirs")


def test_f48_in_containers_too(docker_spell: Spell) -> None:
    run = docker_spell.run(RESUMES, retries=2)
    assert (run.state, run.attempt) == ("complete", 3)
    assert (docker_spell.home.run_dir(run.number) / "checkpoints/step").read_text() == "3\n"


def test_f48_it_is_tried_so_often_and_no_more(spell: Spell, tally: Tally) -> None:
    run = spell.run(f"{tally.command()}; echo $SPELL_ATTEMPT > last; exit 3", retries=2)
    assert (run.state, run.exit_code, run.attempt, len(run.attempts)) == ("failed", 3, 3, 2)
    assert tally.counts["x"] == 3
    assert (spell.home.run_dir(run.number) / "last").read_text() == "3\n", "outputs are those of the last attempt"
    pause_s = [run.attempts[1].started_at - run.attempts[0].ended_at, run.started_at - run.attempts[1].ended_at]
    assert pause_s[0] >= 1, "the pauses grow"
    assert pause_s[1] >= 2


def test_f48_without_retries_it_is_not_tried_again(spell: Spell, tally: Tally) -> None:
    run = spell.run(f"{tally.command()}; exit 3")
    assert (run.state, run.attempts, tally.counts["x"]) == ("failed", [], 1)


def test_f48_a_signal_is_tried_again(spell: Spell) -> None:
    run = spell.run("[ $SPELL_ATTEMPT = 2 ] || kill -SEGV $$", retries=1)
    assert (run.state, run.attempts[0].signal, run.attempts[0].reason) == ("complete", signal.SIGSEGV, "signalled")


@pytest.mark.parametrize(
    ("command", "fields", "reason"),
    [
        ("true", {"pip": ("broken",)}, "build_failed"),
        ("sleep 100", {"timeout_s": 0.2}, "timed_out"),
    ],
)
def test_f48_what_cannot_help_is_not_tried(
    spell: Spell, tmp_path: Path, command: str, fields: dict[str, object], reason: str
) -> None:
    if "pip" in fields:
        fields = {"pip": (str(make_broken_wheel(tmp_path)),)}
    run = spell.run(command, retries=3, **fields)
    assert (run.reason, run.attempt, run.attempts) == (reason, 1, [])


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("python -c 'raise MemoryError'", "it ran out of memory"),
        (
            "echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB' >&2; exit 1",
            "it ran out of memory",
        ),
        ("python -c 'import there_is_no_such_module'", "its environment lacks something"),
    ],
)
def test_f48_what_its_log_says_cannot_help_is_not_tried(spell: Spell, command: str, why: str) -> None:
    run = spell.run(command, retries=3)
    assert (run.state, run.reason, run.attempts) == ("failed", "exited_nonzero", [])
    assert notices(spell, run.number) == [f"Not tried again, because by its log {why}"]


@pytest.mark.engine
def test_f48_out_of_memory_is_not_tried_again(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(docker=True, config="[machine_types.small]\ncpus = 0.5\nmemory_gb = 0.06\n\n")
    run = spell.run("exec python3 -c 'print(len(b\"x\" * (1 << 29)))'", machine_type="small", retries=3)
    assert (run.reason, run.attempt, run.attempts) == ("out_of_memory", 1, [])


def test_f48_a_stop_ends_it_while_it_runs(spell: Spell, tally: Tally) -> None:
    number = spell.cast(f"{tally.command()}; trap 'exit 7' TERM; echo up; sleep 1000 & wait", retries=3)
    spell.says(number, b"up")
    spell.client.runs.stop(str(number))
    run = spell.ended(number)
    assert (run.state, run.reason, run.attempts, tally.counts["x"]) == ("stopped", "stop_requested", [], 1)


def test_f48_a_stop_ends_it_between_attempts_and_keeps_what_there_is(spell: Spell, tally: Tally) -> None:
    number = spell.cast(f"{tally.command()}; echo half > half.txt; {CHECKPOINT}; echo 1 > step; exit 1", retries=3)
    pauses(spell, number)
    spell.client.runs.stop(str(number))
    run = spell.ended(number)
    assert (run.state, run.reason, run.attempt, tally.counts["x"]) == ("stopped", "stop_requested", 1, 1)
    assert (spell.home.run_dir(number) / "half.txt").read_text() == "half\n"
    assert (spell.home.run_dir(number) / "checkpoints/step").read_text() == "1\n"
    assert_legal(spell, number)


def test_f48_a_stop_while_the_next_attempt_is_built_keeps_the_checkpoints(
    make_spell: Callable[..., Spell], tmp_path: Path, tally: Tally
) -> None:
    """The server is held where the next attempt's work dir is made, which is when a person is quickest to stop it."""
    spell = make_spell(config=CONFIG)
    number = spell.cast(f"{tally.command()}; {CHECKPOINT}; echo 1 > step; exit 1", retries=3)
    pauses(spell, number)
    spell.kill_server()
    home = spell.home
    with spell.opened_store() as store:
        assert store.claim(number, []) is not None
    os.rename(home.work_dir(number) / "code/checkpoints", home.checkpoints(number))  # as `WorkDir.make` begins
    remove_tree(home.work_dir(number))
    store_stop_request(home, number)
    run = spell.ended(number)
    assert (run.state, run.reason, tally.counts["x"]) == ("stopped", "stop_requested", 1)
    assert (home.run_dir(number) / "checkpoints/step").read_text() == "1\n"
    assert_legal(spell, number)


def store_stop_request(home: Home, number: int) -> None:
    with contextlib.closing(sqlite3.connect(home.database)) as store:
        store.execute("UPDATE runs SET wish = 'stop' WHERE number = ?", (number,))
        store.commit()


def test_f48_a_kill_between_attempts_loses_everything(spell: Spell, tally: Tally) -> None:
    number = spell.cast(f"{tally.command()}; echo half > half.txt; exit 1", retries=3)
    pauses(spell, number)
    spell.client.runs.kill(str(number))
    run = spell.ended(number)
    assert (run.state, run.outputs_count, tally.counts["x"]) == ("killed", 0, 1)
    assert not spell.home.run_dir(number).exists()
    wait_for(lambda: not spell.home.work_dir(number).exists(), "nothing of it in the work dirs")


def test_f48_a_pause_holds_nobody_up(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config="[machine_types.whole]\ncpus = 2\n")
    number = spell.cast("exit 1", machine_type="whole", retries=3)
    pauses(spell, number)
    assert spell.run("true", machine_type="whole").state == "complete", "an attempt that waits holds no machine"
    assert spell.stored(number)[0] == "machine_requested"


# -- crashes --------------------------------------------------------------------------------------------------------


def test_f48_a_pause_survives_the_server(spell: Spell, tally: Tally) -> None:
    number = spell.cast(f"{tally.command()}; [ $SPELL_ATTEMPT = 2 ]", retries=3)
    wait_for(lambda: spell.client.runs.get(str(number)).attempts, "a failed attempt")
    spell.kill_server()
    run = spell.ended(number)
    assert (run.state, tally.counts["x"], len(run.attempts)) == ("complete", 2, 1)


def test_f48_killed_between_the_verdict_and_the_next_attempt(spell: Spell, tally: Tally, gate: Gate) -> None:
    number = spell.cast(f"{tally.command()}; echo up; {gate.command}; [ $SPELL_ATTEMPT = 2 ]", retries=3)
    spell.says(number, b"up")
    with spell.frozen():
        gate.open()
        verdict = spell.home.attempt_dir(number, 1) / "verdict.json"
        wait_for(verdict.exists, "the verdict")
        spell.kill_server()
    run = spell.ended(number)
    assert (run.state, tally.counts["x"], [item.number for item in run.attempts]) == ("complete", 2, [1])
    assert_legal(spell, number)


def test_f48_a_lost_supervisor_is_one_failed_attempt(spell: Spell, tally: Tally) -> None:
    number = spell.cast(f"{tally.command()}; echo up; [ $SPELL_ATTEMPT = 2 ] || sleep 1000", retries=3)
    spell.says(number, b"up")
    claim = (spell.home.attempt_dir(number, 1) / "claim.json").read_text()
    os.kill(int(claim.partition('"pid": ')[2].partition(",")[0].rstrip("}")), signal.SIGKILL)
    run = spell.ended(number)
    assert (run.state, [item.reason for item in run.attempts]) == ("complete", ["supervisor_lost"])
    assert tally.counts["x"] == 2


def test_f48_killed_again_and_again_each_attempt_is_made_once(spell: Spell, tmp_path: Path) -> None:
    """Whenever the server dies: as many executions as attempts, and no checkpoint is lost."""
    tallies = [Tally(tmp_path / f"tally-{index}") for index in range(4)]
    numbers = [spell.cast(f"{tally.command()}; {RESUMES}", retries=4) for tally in tallies]
    seed = secrets.randbits(16)
    print(f"seed {seed}")
    for step in range(6):
        spell.client.server.get()
        deadline = time.monotonic() + (seed >> (2 * step) & 3) * 0.3 + 0.1
        wait_for(lambda deadline=deadline: time.monotonic() >= deadline, "a moment")
        spell.kill_server()
    for number, tally in zip(numbers, tallies, strict=True):
        run = spell.ended(number, 60)
        assert (run.state, tally.counts["x"], len(run.attempts)) == ("complete", 3, 2)
        assert (spell.home.run_dir(number) / "checkpoints/step").read_text() == "3\n"
        assert_legal(spell, number)


class _Crash(BaseException):
    """The server dies here."""


def test_f48_a_crash_at_any_step_of_making_the_work_dir_loses_no_checkpoint(
    make_spell: Callable[..., Spell], repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`WorkDir.make` is cut off before its first, second, … step, then done again; the code has checkpoints of its own."""
    (repo / "checkpoints").mkdir()
    (repo / "checkpoints/README").write_text("of the code\n")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "Checkpoints")
    spell = make_spell(cwd=repo)
    number = spell("run", f"{CHECKPOINT}; echo mine > step; exit 1").number
    assert spell.client.runs.get(str(number)).state == "failed"
    client_spec = spell.client.runs.get(str(number)).spec
    spell.end()
    context, run, spec = _context(spell.home, client_spec)
    real = {(os, "rename"): os.rename, (workdir, "remove_tree"): remove_tree, (Path, "touch"): Path.touch}
    for crash_at in range(1, 20):
        place = workdir.WorkDir(context, run, spec)
        remove_tree(place.root)
        remove_tree(context.home.checkpoints(run.number))
        place.make()
        (place.root / "code/checkpoints/step").write_text("mine\n")
        left = [crash_at]
        for (owner, name), function in real.items():
            monkeypatch.setattr(owner, name, _crashing(function, left))
        with contextlib.suppress(_Crash):
            place.make()
        for (owner, name), function in real.items():
            monkeypatch.setattr(owner, name, function)
        place.make()
        assert (place.root / "code/checkpoints/step").read_text() == "mine\n", crash_at
        assert (place.root / "code/checkpoints/README").read_text() == "of the code\n", crash_at
        if left[0] > 0:
            break
    else:
        pytest.fail("there are more steps")
    assert crash_at > 5


def _crashing(function: Callable[..., object], left: list[int]) -> Callable[..., object]:
    def crash(*args: object, **words: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            raise _Crash
        return function(*args, **words)

    return crash


def _context(home: Home, spec_words: dict[str, object]) -> tuple[object, object, RunSpec]:
    spec = read_spec(spec_words)
    store = Store(Database(home.database))
    number = store.add(NewRun(spec, "process", 0.1, None, 0))
    return SimpleNamespace(home=home, blobs=BlobStore(home)), store.claimed(number), spec


# -- what is seen of it ---------------------------------------------------------------------------------------------


def test_attempts_are_shown_under_their_run(spell: Spell) -> None:
    done = spell("run", "--retries", "1", "printf started; exit 4")
    assert done.code == 4
    assert "💫 Attempt 1 failed: the command ended with exit code 4; trying again (1 of 1)" in done.out
    assert "--- attempt 2 ---\nstarted\n" in done.out
    shown = spell("info", str(done.number)).out
    assert "Attempts" in shown
    assert "1: the command ended with exit code 4 after " in shown
    assert "2: the command ended with exit code 4" in shown
    assert spell("ps", "--json").json()[-1]["number"] == done.number, "one run, however many attempts"


@pytest.mark.parametrize("retries", [-1, 101])
def test_too_many_retries_are_refused(retries: int) -> None:
    with pytest.raises(InvalidConfig, match="up to 100 times"):
        RunSpec(command="true", retries=retries)


def test_the_pauses_grow_up_to_a_minute() -> None:
    assert [retry.pause_s(failed) for failed in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert retry.pause_s(100) == 60


def test_a_log_says_only_of_its_last_attempt_what_cannot_help(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert retry.hopeless(log) == ""
    log.write_bytes(b"MemoryError\n")
    assert retry.hopeless(log) == "it ran out of memory"
    retry.begin(log, 2)
    assert retry.hopeless(log) == ""
    log.open("ab").write(b"no newline at the end")
    retry.begin(log, 3)
    assert log.read_bytes() == b"MemoryError\n--- attempt 2 ---\nno newline at the end\n--- attempt 3 ---\n"


def test_a_clock_that_was_set_back_makes_no_pause_longer(tmp_path: Path) -> None:
    store = Store(Database(tmp_path / "spell.db"))
    number = store.add(NewRun(RunSpec(command="true"), "process", 1, None, 0))
    with contextlib.closing(sqlite3.connect(tmp_path / "spell.db")) as database:
        for at, is_paused in ((time.time() + 30, True), (time.time() + 1e6, False), (time.time() - 1, False)):
            database.execute("UPDATE runs SET not_before = ?", (at,))
            database.commit()
            assert [run.number for run in store.queued()] == ([] if is_paused else [number])
            assert store.paused() == ({number} if is_paused else set())
            assert (store.next_attempt_at() is not None) == is_paused
