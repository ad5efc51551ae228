"""`spell stats`: what runs use now, whichever executor runs them, and whether it answers or not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Spell, wait_for
from servers import serving

from orchestrator.cli.output.show import width
from orchestrator.errors import Conflict, ExecutorFailed, NotFound
from orchestrator.executors.base import Handle, Usage
from orchestrator.executors.fake import FakeExecutor
from orchestrator.machine import Capacity
from orchestrator.spec.run import RunSpec
from orchestrator.telemetry.complaints import Complaints

BUSY = "while :; do :; done"
TYPES = "[machine_types.small]\ncpus = 0.25\nmemory_gb = 0.25\n"


def check(spell: Spell) -> None:
    """Two runs, one of which works and holds memory: both are told with what they use."""
    hold = "import time; block = bytearray(b'x') * (64 << 20); print('up', flush=True); time.sleep(1000)"
    quiet = spell.cast(f'python -c "{hold}"', name="holder", machine_type="small")
    busy = spell.cast(f"echo up; {BUSY}", machine_type="small")
    for number in (quiet, busy):
        spell.says(number, b"up")

    def used() -> dict[int, dict[str, Any]] | None:
        seen = {item["run"]: item for item in spell("stats", "--json").json()}
        assert list(seen) == [quiet, busy]
        return seen if seen[busy]["cpu_percent"] > 10 else None

    # its quarter of a core is less for a moment when tests beside this one take both
    found = wait_for(used, "the busy run gets its share")
    assert found[quiet]["memory_bytes"] > 64 << 20
    assert found[quiet]["cpu_percent"] < 20 < 120 > found[busy]["cpu_percent"] > 10
    assert (found[quiet]["memory_limit_bytes"], found[quiet]["gpus"]) == (256 << 20, [])
    assert all(item["processes"] >= 1 and 0 < item["duration_s"] < 60 for item in found.values())
    assert [item["run"] for item in spell("stats", "--json", "holder").json()] == [quiet]

    lines = spell("stats").out.splitlines()
    assert lines[0].split() == "ID NAME CPU MEMORY / LIMIT PROCESSES GPU TIME".split()
    assert lines[1].split()[:2] == [str(quiet), "holder"] and "/ 256M" in lines[1]
    assert f"echo up; {BUSY}" in lines[2]
    assert len({width(line[: line.index(" / ")]) for line in lines[1:]}) <= 2

    spell.client.runs.kill(str(busy))
    spell.ended(busy)
    done = spell("stats", str(quiet), str(busy))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"ERROR: Run {busy} is not running: it is killed.\n")


def test_of_processes(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config=TYPES)
    assert spell("stats").out == "Nothing is running.\n"
    assert spell("stats", "--json").json() == []
    check(spell)


@pytest.mark.engine
def test_of_containers(make_spell: Callable[..., Spell]) -> None:
    check(make_spell(config=TYPES, docker=True))


class Silent(FakeExecutor):
    """Does not answer what a run whose command is `ignore` uses, until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.speak = threading.Event()
        self.asked = 0

    def usage(self, handle: Handle) -> Usage | None:
        if handle.data["verb"] == "ignore":
            self.asked += 1
            self.speak.wait(60)
        return Usage(time.monotonic(), 1 << 20, 3)


@pytest.fixture
def silent() -> Iterator[Silent]:
    """An executor that speaks at the end, at the latest."""
    executor = Silent()
    yield executor
    executor.speak.set()


@pytest.mark.server
def test_who_does_not_answer_holds_up_nobody(tmp_path: Path, silent: Silent) -> None:
    with serving(tmp_path, {"fake": silent}, Capacity(8, 8 << 30, (0,)), "sample_interval_s = 1000") as client:
        numbers = [client.runs.cast(RunSpec(command=command)).number for command in ("ignore", "hang")]
        wait_for(lambda: [run.state for run in client.runs.list()] == ["running"] * 2, "both run")
        for _ in range(2):
            began = time.monotonic()
            mute, told = client.stats.list()
            assert time.monotonic() - began < 4
            assert (mute.run, mute.cpu_percent, mute.memory_bytes, mute.processes) == (numbers[0], None, None, None)
            assert (told.run, told.memory_bytes, told.processes) == (numbers[1], 1 << 20, 3)
            assert told.cpu_percent == pytest.approx(100, abs=15)
        assert silent.asked == 1  # who hangs is not asked again and again
        silent.speak.set()
        assert wait_for(lambda: client.stats.list([str(numbers[0])])[0].processes, "an answer") == 3
        with pytest.raises(NotFound):
            client.stats.list(["4711"])
        client.runs.kill(str(numbers[1]))
        client.runs.wait(str(numbers[1]))
        with pytest.raises(Conflict, match=f"Run {numbers[1]} is not running"):
            client.stats.list([str(numbers[1])])


def test_an_error_of_ours_is_logged_in_one_line_when_its_words_change(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(logging.getLogger("test"), "run %d cannot be looked at")
    for words in ("away", "away", "busy", "busy", "away"):
        with complaints.of(7):
            raise ExecutorFailed(words)
    with complaints.of(8):
        raise ExecutorFailed("away")
    complaints.forget_all_but([8])
    for number in (7, 8):
        with complaints.of(number):
            raise ExecutorFailed("away")
    said = [f"run {number} cannot be looked at: {words}" for number, words in ((7, "away"), (7, "busy"), (7, "away"))]
    assert caplog.messages == [*said, "run 8 cannot be looked at: away", "run 7 cannot be looked at: away"]
    assert {(record.levelname, record.exc_info) for record in caplog.records} == {("WARNING", None)}
    with complaints.of(7):
        raise ValueError("unexpected")
    assert caplog.records[-1].exc_info is not None


class Failing(FakeExecutor):
    """Never says what a run uses."""

    def usage(self, handle: Handle) -> Usage | None:
        raise ExecutorFailed("its machine is away")


@pytest.mark.server
def test_samples_and_stats_that_fail_do_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path, {"fake": Failing()}, Capacity(8, 8 << 30, ()), "sample_interval_s = 0.05") as client:
        number = client.runs.cast(RunSpec(command="hang")).number
        wait_for(lambda: f"run {number} could not be sampled: its machine is away" in caplog.messages, "a sample")
        for _ in range(2):
            assert client.stats.list()[0].memory_bytes is None
        client.runs.kill(str(number))
        client.runs.wait(str(number))
    about = [record for record in caplog.records if "its machine is away" in record.getMessage()]
    assert sorted(record.name for record in about) == ["orchestrator.service.stats", "orchestrator.telemetry.samples"]
    assert not any(record.exc_info for record in about)
