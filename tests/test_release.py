"""A machine is given back when nothing is left on it, and a run is not forgotten while nobody can tell."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import wait_for
from servers import serving

from orchestrator.errors import ExecutorFailed
from orchestrator.executors.base import Handle, Launch, Verdict
from orchestrator.executors.fake import FakeExecutor
from orchestrator.home import Home
from orchestrator.lifecycle import context, life
from orchestrator.machine import Capacity
from orchestrator.spec.run import RunSpec
from orchestrator.store import NewRun, Store
from orchestrator.store.database import Database

pytestmark = pytest.mark.server

MACHINE = Capacity(1.0, 1 << 30, ())
CONFIG = "[machine_types.cpu]\ncpus = 1\n"


class Sticky(FakeExecutor):
    """One whose attempts are lost, and cannot be removed before they may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go = threading.Event()

    def start(self, launch: Launch, cancelled: Callable[[], bool] = lambda: False) -> Handle:
        (launch.code / "left.txt").write_text("left")
        return super().start(launch, cancelled)

    def destroy(self, handle: Handle) -> None:
        if not self.may_go.is_set():
            raise ExecutorFailed("it does not go")
        super().destroy(handle)


class Forgetful(FakeExecutor):
    """One that cannot tell at first what there is of an attempt."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def recover(self, folder: Path) -> Handle | None:
        if self.times:
            self.times -= 1
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        return super().recover(folder)


def test_f09_a_machine_that_is_not_given_back_is_not_given_out(tmp_path: Path) -> None:
    executor = Sticky()
    with serving(tmp_path / "home", {"fake": executor}, MACHINE, CONFIG) as client, contextlib.ExitStack() as end:
        end.callback(executor.may_go.set)
        first = client.runs.cast(RunSpec("exit 0")).number
        assert client.runs.wait(str(first), 30).state == "complete"
        second = client.runs.cast(RunSpec("exit 0")).number
        wait_for(lambda: any(e.kind == "notice" for e in client.runs.events(str(first))), "words about the machine")
        assert client.runs.get(str(second)).state == "machine_requested"
        assert {item.free_now for item in client.machines.list() if item.name == "cpu"} == {0}
        executor.may_go.set()
        assert client.runs.wait(str(second), 30).state == "complete"


def test_nothing_is_saved_while_something_may_still_write_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(life, "_LOST_LIMIT_S", 0.1)
    executor = Sticky()
    home = Home(tmp_path / "home")
    with serving(home.root, {"fake": executor}, MACHINE, CONFIG) as client, contextlib.ExitStack() as end:
        end.callback(executor.may_go.set)
        number = client.runs.cast(RunSpec("lose")).number
        run = client.runs.wait(str(number), 30)
        assert (run.state, run.reason) == ("failed", "supervisor_lost")
        assert "not saved" in run.message
        assert not home.run_dir(number).exists()
        assert (home.work_dir(number) / "code" / "left.txt").read_text() == "left", "it is not lost either"


def test_f01_a_run_that_nobody_can_tell_of_is_asked_for_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(context, "_RETRY_S", 0.05)
    home = Home(tmp_path / "home")
    home.create()
    store = Store(Database(home.database))
    number = store.add(NewRun(RunSpec("exit 7"), "fake", 1.0, None, 0))
    claimed = store.claim(number, ())  # by a server that is dead
    assert claimed
    executor = Forgetful(times=3)
    with serving(home.root, {"fake": executor}, MACHINE, CONFIG) as client:
        run = client.runs.wait(str(number), 30)
    assert (run.state, run.exit_code) == ("failed", 7), run
    assert executor.times == 0


def test_f01_a_machine_that_cannot_tell_for_a_moment_costs_no_run(tmp_path: Path, monkeypatch) -> None:
    failures = [errno.EMFILE, errno.EMFILE]

    class Blind(FakeExecutor):
        def wait(self, handle: Handle, timeout_s: float | None = None) -> Verdict | None:
            if failures:
                raise OSError(failures.pop(), "Too many open files")
            return super().wait(handle, timeout_s)

    monkeypatch.setattr(context, "_RETRY_S", 0.05)
    with serving(tmp_path / "home", {"fake": Blind()}, MACHINE, CONFIG) as client:
        run = client.runs.wait(str(client.runs.cast(RunSpec("exit 7")).number), 30)
    assert (run.state, run.exit_code, failures) == ("failed", 7, []), run


def test_f09_whatever_a_start_raises_nothing_is_left_of_it(tmp_path: Path) -> None:
    class Odd(FakeExecutor):
        destroyed = 0

        def start(self, launch: Launch, cancelled: Callable[[], bool] = lambda: False) -> Handle:
            super().start(launch, cancelled)
            raise ValueError("of somebody's library")

        def destroy(self, handle: Handle) -> None:
            self.destroyed += 1
            super().destroy(handle)

    executor = Odd()
    with serving(tmp_path / "home", {"fake": executor}, MACHINE, CONFIG) as client:
        run = client.runs.wait(str(client.runs.cast(RunSpec("hang")).number), 30)
        assert (run.state, run.reason) == ("failed", "internal_error"), run
        wait_for(lambda: executor.destroyed, "what was started is ended")
        assert client.runs.wait(str(client.runs.cast(RunSpec("refuse")).number), 30).state == "failed"


def test_a_reason_that_is_no_text_ends_the_run_all_the_same(tmp_path: Path) -> None:
    class Odd(FakeExecutor):
        def wait(self, handle: Handle, timeout_s: float | None = None) -> Verdict | None:
            return Verdict(reason="executor_failed", detail="\ud800 is gone")

    with serving(tmp_path / "home", {"fake": Odd()}, MACHINE, CONFIG) as client:
        run = client.runs.wait(str(client.runs.cast(RunSpec("exit 0")).number), 30)
    assert run.state == "failed" and "\\ud800 is gone" in run.message
