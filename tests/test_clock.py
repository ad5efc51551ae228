"""The wall clock jumps while things run. The processes are real; only the `time.time` that they read is ours.

No test may set the clock of the machine. So supervisor and server are started here with a few words more, by which their
`time.time` adds the seconds that a file says; the monotonic clock stays the kernel's.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Spell, wait_for
from launches import make_launch

import orchestrator
from orchestrator.cli.output import show
from orchestrator.client.client import Client
from orchestrator.executors.process import ProcessExecutor
from orchestrator.records.runs import RunRecord
from orchestrator.spec.run import RunSpec

HOURS = 3600.0
LIMIT_S = 30.0
CLOCK = "import sys, time; real = time.time; time.time = lambda: real() + float(open({clock!r}).read()); "
SUPERVISOR = "sys.path.insert(0, {parent!r}); from orchestrator.supervisor.main import main; sys.exit(main({folder!r}))"
SERVER = "from orchestrator.server.main import main; main()"


class Clock:
    """A wall clock that can be set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set(0)

    def set(self, offset_s: float) -> None:
        beside = self.path.with_name("next")
        beside.write_text(str(offset_s))
        beside.rename(self.path)

    def run(self, words: str, *options: str, **more: object) -> subprocess.Popen[bytes]:
        """A Python that reads this clock and runs `words`."""
        code = CLOCK.format(clock=str(self.path)) + words
        return subprocess.Popen([sys.executable, *options, "-c", code], start_new_session=True, **more)  # type: ignore[call-overload]


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.mark.parametrize("jump_s", [-2 * HOURS, 2 * HOURS])
def test_f46_the_clock_jumps_while_a_command_runs(tmp_path: Path, clock: Clock, jump_s: float) -> None:
    """What the supervisor records comes of the monotonic clock, and so does the time limit."""
    gate, log, folder = tmp_path / "gate", tmp_path / "log", tmp_path / "attempt"
    folder.mkdir()
    executor = ProcessExecutor()
    launch = make_launch(
        tmp_path,
        f"echo up; until [ -e {gate} ]; do sleep 0.02; done; exit 5",
        env=dict(os.environ),
        log=log,
        folder=folder,
        timeout_s=HOURS,
    )
    executor._write_request(launch)
    parent = str(Path(orchestrator.__file__).parent.parent)
    began_at, began = time.time(), time.monotonic()
    with clock.run(SUPERVISOR.format(parent=parent, folder=str(folder)), stdout=subprocess.PIPE) as supervisor:
        wait_for(lambda: log.exists() and log.read_bytes() == b"up\n", "the command")
        clock.set(jump_s)
        running_until = time.monotonic() + 0.1
        wait_for(lambda: time.monotonic() > running_until, "some running time")
        handle = executor.recover(folder)
        assert handle is not None
        gate.touch()
        verdict = executor.wait(handle, LIMIT_S)
        assert verdict is not None
        executor.destroy(handle)
        assert supervisor.wait(LIMIT_S) == 0
    assert (verdict.exit_code, verdict.reason) == (5, "")
    assert 0.1 <= verdict.duration_s <= time.monotonic() - began
    assert began_at <= verdict.started_at <= verdict.ended_at <= time.time()
    assert verdict.cpu_time_s >= 0


@pytest.fixture
def server(make_spell: Callable[..., Spell], clock: Clock) -> Iterator[Spell]:
    """A home whose server reads `clock`."""
    spell = make_spell()
    spell.home.create()
    with clock.run(SERVER, env=spell.env, stderr=subprocess.DEVNULL):
        with Client(spell.home, start=False) as client:
            wait_for(lambda: _answers(client), "the server")
        yield spell
        spell.end()


def _answers(client: Client) -> bool:
    with contextlib.suppress(orchestrator.errors.ServerUnavailable):
        return client.server.get().pid > 0
    return False


def assert_sane(run: RunRecord) -> None:
    assert run.duration_s is not None
    assert run.ended_at is not None
    assert 0 <= run.duration_s < LIMIT_S
    if run.started_at is not None:
        assert 0 <= run.ended_at - run.started_at < LIMIT_S


@pytest.mark.parametrize("jump_s", [-2 * HOURS, 2 * HOURS])
def test_f46_the_clock_of_the_server_jumps(server: Spell, clock: Clock, tmp_path: Path, jump_s: float) -> None:
    gate = tmp_path / "gate"
    running = server.cast(f"until [ -e {gate} ]; do sleep 0.02; done; echo out > out.txt", name="before")
    stopped = server.cast("sleep 1000")
    server.reaches(running, "running")
    clock.set(jump_s)
    later = server.cast("true", name="after")
    assert server.client.runs.get("after").created_at == pytest.approx(time.time() + jump_s, abs=LIMIT_S)
    queued = server.client.runs.cast(RunSpec(command="true")).number
    with contextlib.suppress(orchestrator.errors.Conflict):  # it may have had its turn
        server.client.runs.kill(str(queued))
    server.client.runs.stop(str(stopped))
    gate.touch()
    states = {number: server.ended(number) for number in (running, stopped, later, queued)}
    assert (states[running].state, states[later].state) == ("complete", "complete")
    assert states[stopped].state in ("stopped", "killed")
    for run in states.values():
        assert_sane(run)
    events = server.client.runs.events(str(running))
    assert [event.id for event in events] == sorted(event.id for event in events)
    assert events[-1].state == "complete"  # their order is that of their ids, whatever the clock says
    told = server("ps")
    assert told.code == 0
    assert "just now" in told.out or "2 hours ago" in told.out
    for number in states:
        (took,) = [line for line in server("info", str(number)).out.splitlines() if line.startswith("Duration")]
        assert "-" not in took


def test_f46_a_time_that_is_yet_to_come_is_now() -> None:
    assert show.ago(time.time() + HOURS) == "just now"
    assert show.duration(0.0) == "0s"
