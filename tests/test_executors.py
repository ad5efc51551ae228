"""The contract of `orchestrator.executors.base.Executor`: the same assertions on every executor."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S, bearing, wait_for
from engines import docker_executor, engine_api, need_engine
from launches import make_launch

from orchestrator.errors import Conflict, InvalidConfig, MountFailed, PhaseFailed
from orchestrator.executors.base import Bind, Executor, Handle, Launch, Verdict
from orchestrator.executors.fake import FakeExecutor
from orchestrator.executors.process import ProcessExecutor
from orchestrator.home import Home
from orchestrator.records.machines import MachineType
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import RunSpec

GRACE_S = 0.3
LIMIT_S = DEADLINE_S


@dataclass(frozen=True)
class Kind:
    """An executor, and how its commands say what the tests mean.

    Attributes:
        make: another instance of it for a home, as a server that was started again has.
        script: what is meant → command.
        ready: what a `hang` has said as soon as it can be stopped.
        lose: takes the supervisor away.
    """

    make: Callable[[Home], Executor]
    script: Mapping[str, str]
    ready: bytes
    lose: Callable[[Handle], None]


_LOOP = "echo ready; while :; do sleep 0.02; done"
_SHELL = {
    "exit 0": "echo said; exit 0",
    "exit 3": "echo said; exit 3",
    "signal 9": "kill -9 $$",
    "signal 15": "kill -15 $$",
    "hang": f"trap 'exit 143' TERM; {_LOOP}",
    "ignore": f"trap '' TERM; {_LOOP}",
    "lose": _LOOP,
    "refuse": "exit 0",
}


def _kill_supervisor(handle: Handle) -> None:
    os.kill(int(handle.data["pid"]), signal.SIGKILL)


def _kill_reaper(handle: Handle) -> None:
    os.kill(engine_api().inspect_container(handle.data["container"])["State"]["Pid"], signal.SIGKILL)


KINDS = {
    "namespaces": Kind(lambda home: ProcessExecutor(), _SHELL, b"ready", _kill_supervisor),
    "processes": Kind(lambda home: ProcessExecutor(namespaces=False), _SHELL, b"ready", _kill_supervisor),
    "docker": Kind(docker_executor, _SHELL, b"ready", _kill_reaper),
    "fake": Kind(lambda home: FakeExecutor(), {word: word for word in _SHELL}, b"", lambda handle: None),
}


DOCKER = pytest.param("docker", marks=pytest.mark.engine)


def _kind(request: pytest.FixtureRequest, home: Home) -> Kind:
    if request.param == "namespaces" and ProcessExecutor().isolation == "none":
        pytest.skip("the kernel gives no private namespaces here")
    if request.param == "docker":
        need_engine()
    return KINDS[request.param]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    return made


@pytest.fixture(params=[DOCKER if name == "docker" else name for name in KINDS])
def kind(request: pytest.FixtureRequest, home: Home) -> Kind:
    return _kind(request, home)


@pytest.fixture
def executor(kind: Kind, home: Home) -> Executor:
    return kind.make(home)


@pytest.fixture
def launch(tmp_path: Path, token: str, home: Home, kind: Kind, executor: Executor) -> Any:
    """Makes what can be started: `launch("exit 3")`. What is left of it at the end of the test is destroyed."""
    made: list[Launch] = []
    base = executor.base(RunSpec("true"), 0, tmp_path / "build.log", lambda: False)

    def make(meant: str, **changed: Any) -> Launch:
        store = tmp_path / "store"
        given = make_launch(
            tmp_path,
            kind.script[meant],
            number=len(made) + 1,
            env={"PATH": os.environ["PATH"], "TOKEN": token},
            base=base,
            environment=store,
            protected=(store,),
            machine=MachineType("cpu", 1.0, memory_bytes=256 << 20),
            grace_s=GRACE_S if meant == "ignore" else LIMIT_S,
        )
        made.append(replace(given, **changed))
        return made[-1]

    yield make
    for item in made:
        handle = executor.recover(item.folder)
        if handle:
            executor.destroy(handle)
    wait_for(lambda: not bearing(token), "every process of the attempts is gone")


@pytest.fixture
def running(kind: Kind, executor: Executor, launch: Callable[..., Launch]) -> tuple[Launch, Handle]:
    """An attempt that goes on until it is stopped."""
    return _started(kind, executor, launch("hang"))


def _started(kind: Kind, executor: Executor, launch: Launch) -> tuple[Launch, Handle]:
    executor.prepare(launch)
    handle = executor.start(launch)
    wait_for(lambda: kind.ready in launch.log.read_bytes(), "the command is ready")
    return launch, handle


def _end(executor: Executor, handle: Handle) -> Verdict:
    verdict = executor.wait(handle, LIMIT_S)
    assert verdict is not None, "it did not end"
    return verdict


@pytest.mark.parametrize("code", [0, 3])
def test_exit_codes(executor: Executor, launch: Callable[..., Launch], code: int) -> None:
    before = time.time()
    handle = executor.start(launch(f"exit {code}"))
    verdict = _end(executor, handle)
    assert (verdict.exit_code, verdict.signal, verdict.reason) == (code, None, "")
    assert before - 1 <= verdict.started_at <= verdict.ended_at <= time.time() + 1
    assert 0 <= verdict.duration_s < LIMIT_S


@pytest.mark.parametrize("number", [9, 15])
def test_end_by_signal(executor: Executor, launch: Callable[..., Launch], number: int) -> None:
    verdict = _end(executor, executor.start(launch(f"signal {number}")))
    assert (verdict.exit_code, verdict.signal, verdict.reason) == (None, number, "")


def test_cores_that_the_machine_lacks_are_no_reason_to_fail(executor: Executor, launch: Any) -> None:
    """A Docker engine may have fewer than the server, and machines change."""
    verdict = executor.wait(executor.start(launch("exit 3", cores=(1000,))), LIMIT_S)
    assert verdict is not None and verdict.exit_code == 3


def test_stop_asks_first(executor: Executor, running: tuple[Launch, Handle]) -> None:
    executor.stop(running[1], kill=False)
    assert _end(executor, running[1]).exit_code == 143


def test_stop_kills_after_the_grace_time(kind: Kind, executor: Executor, launch: Callable[..., Launch]) -> None:
    _, handle = _started(kind, executor, launch("ignore"))
    asked = time.monotonic()
    executor.stop(handle, kill=False)
    verdict = _end(executor, handle)
    assert (verdict.exit_code, verdict.signal) == (None, 9)
    assert time.monotonic() - asked >= GRACE_S


def test_a_second_stop_does_not_lengthen_the_grace_time(
    kind: Kind, executor: Executor, launch: Callable[..., Launch]
) -> None:
    _, handle = _started(kind, executor, launch("ignore"))
    executor.stop(handle, kill=False)
    while executor.wait(handle, GRACE_S / 3) is None:
        executor.stop(handle, kill=False)
    assert _end(executor, handle).signal == 9


def test_kill_does_not_ask(kind: Kind, executor: Executor, launch: Callable[..., Launch]) -> None:
    _, handle = _started(kind, executor, launch("hang", grace_s=LIMIT_S * 10))
    executor.stop(handle, kill=True)
    assert _end(executor, handle).signal == 9


def test_kill_cuts_a_stop_short(kind: Kind, executor: Executor, launch: Callable[..., Launch]) -> None:
    _, handle = _started(kind, executor, launch("ignore", grace_s=LIMIT_S * 10))
    executor.stop(handle, kill=False)
    assert executor.wait(handle, 0.1) is None
    executor.stop(handle, kill=True)
    assert _end(executor, handle).signal == 9


def test_stop_of_what_is_over_is_no_error(executor: Executor, launch: Callable[..., Launch]) -> None:
    handle = executor.start(launch("exit 3"))
    _end(executor, handle)
    executor.stop(handle, kill=False)
    executor.stop(handle, kill=True)
    assert _end(executor, handle).exit_code == 3


def test_second_start_is_refused(kind: Kind, home: Home, executor: Executor, running: tuple[Launch, Handle]) -> None:
    launch, handle = running
    for instance in (executor, kind.make(home)):
        with pytest.raises(Conflict, match="was started before"):
            instance.start(launch)
    assert executor.wait(handle, 0.05) is None, "the first start went on"
    executor.stop(handle, kill=True)
    _end(executor, handle)
    with pytest.raises(Conflict, match="was started before"):
        executor.start(launch)


def test_of_starts_at_once_one_wins(kind: Kind, home: Home, launch: Callable[..., Launch], executor: Executor) -> None:
    wanted = launch("hang")
    found: list[str] = []
    barrier = threading.Barrier(4)

    def start() -> None:
        instance = kind.make(home)
        barrier.wait()
        try:
            instance.start(wanted)
            found.append("won")
        except Conflict:
            found.append("refused")

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["refused", "refused", "refused", "won"]
    wait_for(lambda: kind.ready in wanted.log.read_bytes(), "the command is ready")
    assert wanted.log.read_bytes().count(b"ready") == kind.ready.count(b"ready"), "it was started twice"


def test_recover_of_what_was_never_started(
    kind: Kind, home: Home, executor: Executor, launch: Callable[..., Launch]
) -> None:
    wanted = launch("hang")
    assert executor.recover(wanted.folder) is None
    assert kind.make(home).recover(wanted.folder) is None
    with pytest.raises(Conflict):
        executor.start(wanted)
    assert not wanted.log.exists(), "it was started all the same"


def test_recover_by_a_second_instance(
    kind: Kind, home: Home, executor: Executor, running: tuple[Launch, Handle]
) -> None:
    launch, handle = running
    second = kind.make(home)
    again = second.recover(launch.folder)
    assert again == handle
    assert second.wait(again, 0.05) is None
    usage = second.usage(again)
    assert usage and usage.processes >= 1
    second.stop(again, kill=False)
    assert _end(second, again) == _end(executor, handle)
    assert _end(executor, handle).exit_code == 143


def test_recover_of_what_is_over(kind: Kind, home: Home, executor: Executor, launch: Callable[..., Launch]) -> None:
    wanted = launch("exit 3")
    first = _end(executor, executor.start(wanted))
    second = kind.make(home)
    again = second.recover(wanted.folder)
    assert again is not None
    assert second.wait(again, 0) == first


def test_handle_is_plain_data(kind: Kind, home: Home, executor: Executor, running: tuple[Launch, Handle]) -> None:
    handle = running[1]
    stored = json.loads(json.dumps({"folder": str(handle.folder), "data": dict(handle.data)}))
    again = Handle(handle.executor, handle.version, Path(stored["folder"]), stored["data"])
    assert again == handle
    assert handle.executor == executor.name
    second = kind.make(home)
    second.stop(again, kill=True)
    assert _end(second, again).signal == 9


def test_wait_gives_up_in_time(executor: Executor, running: tuple[Launch, Handle]) -> None:
    before = time.monotonic()
    assert executor.wait(running[1], 0) is None
    assert executor.wait(running[1], 0.1) is None
    assert 0.1 <= time.monotonic() - before < LIMIT_S


def test_several_threads_wait(executor: Executor, running: tuple[Launch, Handle]) -> None:
    found: list[Verdict] = []
    threads = [threading.Thread(target=lambda: found.append(_end(executor, running[1]))) for _ in range(3)]
    for thread in threads:
        thread.start()
    executor.stop(running[1], kill=True)
    for thread in threads:
        thread.join()
    assert [verdict.signal for verdict in found] == [9, 9, 9]


def test_usage(executor: Executor, running: tuple[Launch, Handle]) -> None:
    usage = executor.usage(running[1])
    assert usage is not None
    assert usage.processes >= 1
    assert usage.cpu_time_s >= 0 and usage.memory_bytes >= 0
    executor.stop(running[1], kill=True)
    _end(executor, running[1])
    assert executor.usage(running[1]) is None


def test_destroy_may_be_called_again(
    kind: Kind, home: Home, executor: Executor, running: tuple[Launch, Handle]
) -> None:
    executor.destroy(running[1])
    executor.destroy(running[1])
    kind.make(home).destroy(running[1])
    assert executor.wait(running[1], 0) is not None
    assert executor.usage(running[1]) is None
    assert running[0].folder.exists() and running[0].log.exists(), "files are not its to remove"


def test_log_is_where_the_launch_says(
    kind: Kind, executor: Executor, launch: Callable[..., Launch], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "a folder of its own" / "the log"
    elsewhere.parent.mkdir()
    handle = executor.start(launch("exit 3", log=elsewhere))
    _end(executor, handle)
    assert elsewhere.read_bytes() == (b"said\n" if kind.ready else b"")


def test_failure_to_start(executor: Executor, launch: Callable[..., Launch], token: str) -> None:
    wanted = launch("refuse", subdir="a folder that is not there")
    with pytest.raises(PhaseFailed) as caught:
        executor.start(wanted)
    assert caught.value.reason == "executor_failed"
    assert caught.value.message, "it says why"
    assert not bearing(token)


def test_lost_supervisor(kind: Kind, executor: Executor, launch: Callable[..., Launch], token: str) -> None:
    _, handle = _started(kind, executor, launch("lose")) if kind.ready else (None, executor.start(launch("lose")))
    kind.lose(handle)
    verdict = _end(executor, handle)
    assert verdict.reason == "supervisor_lost"
    assert verdict.detail, "it says more"
    assert executor.usage(handle) is None
    executor.destroy(handle)
    assert not bearing(token)


def test_mount_over_what_the_machine_needs_is_refused_when_cast(executor: Executor) -> None:
    executor.refuse(RunSpec(command="true", mounts=(Mount("runs/1/data", "data"),)))
    with pytest.raises(InvalidConfig, match="/proc"):
        executor.refuse(RunSpec(command="true", mounts=(Mount("runs/1/data", "/proc"),)))


def test_warnings_are_words(executor: Executor) -> None:
    told = executor.warnings(RunSpec(command="true"), MachineType("big", 1, memory_bytes=1 << 30))
    assert all(isinstance(line, str) and line for line in told)
    assert bool(told) == (executor.name != "docker"), "only containers hold a run to its memory"


def test_launch_hides_the_environment(launch: Callable[..., Launch], token: str) -> None:
    assert token not in repr(launch("exit 0"))


# -- what only executors that run something can show ---------------------------------------------------------------


class TestProcesses:
    """Both ways of the process executor, and containers."""

    @pytest.fixture(params=["namespaces", "processes", DOCKER])
    def kind(self, request: pytest.FixtureRequest, home: Home) -> Kind:
        return _kind(request, home)

    def test_time_limit(self, kind: Kind, executor: Executor, launch: Callable[..., Launch]) -> None:
        _, handle = _started(kind, executor, launch("hang", timeout_s=0.3))
        verdict = _end(executor, handle)
        assert (verdict.reason, verdict.exit_code) == ("timed_out", 143)
        assert verdict.duration_s >= 0.3

    def test_time_limit_that_is_not_reached(self, executor: Executor, launch: Callable[..., Launch]) -> None:
        assert _end(executor, executor.start(launch("exit 3", timeout_s=LIMIT_S * 10))).reason == ""

    def test_what_it_used(self, executor: Executor, launch: Callable[..., Launch]) -> None:
        burn = "python3 -c 'import time; b = bytearray(50 << 20)\nwhile time.process_time() < 0.2: pass'"
        verdict = _end(executor, executor.start(launch("exit 0", command=burn)))
        assert verdict.exit_code == 0
        assert verdict.cpu_time_s >= 0.2
        assert verdict.duration_s >= 0.2
        assert verdict.max_rss_bytes > 50 << 20

    def test_usage_counts_the_whole_tree(self, kind: Kind, executor: Executor, launch: Callable[..., Launch]) -> None:
        command = "for i in 1 2 3; do setsid sleep 1000 & done; echo ready; wait"
        _, handle = _started(kind, executor, launch("hang", command=command))

        def whole() -> bool:
            usage = executor.usage(handle)
            return usage is not None and usage.processes >= 4 and usage.memory_bytes > 0

        wait_for(whole, "the shell and its three children")

    def test_request_is_not_left(self, executor: Executor, running: tuple[Launch, Handle], token: str) -> None:
        for path in (path for path in running[0].folder.rglob("*") if path.is_file()):
            assert token.encode() not in path.read_bytes(), f"{path} holds the environment's values"

    def test_mount_that_leads_out_is_refused(
        self, executor: Executor, launch: Callable[..., Launch], tmp_path: Path
    ) -> None:
        (tmp_path / "source").mkdir()
        (tmp_path / "outside").mkdir()
        wanted = launch("exit 0", binds=(Bind(tmp_path / "source", "link/here"),))
        (wanted.code / "link").symlink_to(tmp_path / "outside")
        with pytest.raises(MountFailed, match="leads out"):
            executor.prepare(wanted)
        assert not list((tmp_path / "outside").iterdir())

    def test_mount_in_a_files_place_is_refused(
        self, executor: Executor, launch: Callable[..., Launch], tmp_path: Path
    ) -> None:
        (tmp_path / "source").mkdir()
        wanted = launch("exit 0", binds=(Bind(tmp_path / "source", "file/here"),))
        (wanted.code / "file").write_text("a file")
        with pytest.raises(MountFailed, match="cannot be placed"):
            executor.prepare(wanted)

    @pytest.mark.parametrize(
        ("source", "targets", "why"),
        [
            ("file", ["folder"], "it is a folder of the code, and a file is mounted"),
            ("folder", ["file"], "it is a file of the code, and a folder is mounted"),
            ("folder", ["file/deep/er"], "'file' is a file of the code, and so cannot hold it"),
            ("folder", ["link"], "it is a link in the code"),
            ("folder", ["folder/new", "link/new"], "a link of the code leads it to the mount at 'folder/new'"),
            ("file", ["folder/new", "link/new/er"], "a link of the code leads it to the mount at 'folder/new'"),
        ],
    )
    def test_mount_that_cannot_be_names_another_place(
        self,
        executor: Executor,
        launch: Callable[..., Launch],
        tmp_path: Path,
        source: str,
        targets: list[str],
        why: str,
    ) -> None:
        """And changes nothing of the code."""
        (tmp_path / "kept" / "folder").mkdir(parents=True)
        (tmp_path / "kept" / "file").touch()
        binds = [Bind(tmp_path / "kept" / source, target, f"runs/1/{source}") for target in targets]
        wanted = launch("exit 0", subdir="folder", binds=tuple(binds))
        (wanted.code / "folder" / "in").mkdir(parents=True)
        (wanted.code / "file").write_text("mine")
        (wanted.code / "link").symlink_to("folder")
        with pytest.raises(MountFailed, match=why) as raised:
            executor.prepare(wanted)
        assert raised.value.message.startswith(f"{targets[-1]!r} cannot be placed: ")
        assert raised.value.cure == f"Mount it elsewhere, for example: -m runs/1/{source}:in-2/{source}"
        assert ((wanted.code / "file").read_text(), os.listdir(wanted.code / "folder" / "in")) == ("mine", [])

    def test_supervisor_leaves_no_zombie(self, kind: Kind, executor: Executor, launch: Callable[..., Launch]) -> None:
        if "pid" not in (handle := executor.start(launch("exit 0"))).data:
            pytest.skip("its supervisor is in the container")
        _end(executor, handle)
        executor.destroy(handle)
        pid = int(handle.data["pid"])
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the supervisor was reaped")
