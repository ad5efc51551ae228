"""`spell doctor`: what works, what does not, and what to do about it; also where nothing works."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Done, Spell, wait_for
from docker.types import HostConfig
from servers import serving

from orchestrator.config import DockerConfig
from orchestrator.engine import Engine, find
from orchestrator.executors.docker import checks as docker_checks
from orchestrator.executors.fake import FakeExecutor
from orchestrator.home import Home
from orchestrator.machine import Capacity
from orchestrator.records.machines import CheckRecord

NO_ENGINE = "unix:///there/is/none"


def checks(done: Done) -> dict[str, CheckRecord]:
    """What was looked at, by name."""
    return {item["name"]: CheckRecord(**item) for item in done.json()}


def test_a_home_of_processes(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(DOCKER_HOST=NO_ENGINE)
    done = spell("doctor", "--json")
    found = checks(done)
    assert done.code == 0
    assert list(found)[:6] == ["program", "git", "uv", "home", "disk", "server"]
    for name in ("program", "git", "uv", "home", "server", "executor"):
        assert (found[name].status, found[name].cure) == ("ok", ""), name
    assert (found["docker"].status, found["docker"].text) == ("warn", f"No Docker engine answers at {NO_ENGINE}.")
    assert "process executor" in found["executor"].text
    assert {item.status for item in found.values()} <= {"ok", "warn"}
    assert all(item.cure for item in found.values() if item.status == "warn")

    shown = spell("doctor")
    lines = shown.out.splitlines()
    assert (shown.code, shown.err, lines[0].split()[:2]) == (0, "", ["✓", "program"])
    place = next(index for index, line in enumerate(lines) if line.startswith("! docker "))
    assert lines[place + 1].strip().startswith("To run in containers, start or install one:")
    plain = spell("doctor", env={"LC_ALL": "C"})
    assert plain.out.startswith("ok program  ") and plain.out.isascii()


@pytest.mark.engine
def test_a_home_of_containers(make_spell: Callable[..., Spell]) -> None:
    found = checks(make_spell(docker=True)("doctor", "--json"))
    assert found["docker"].text.startswith(("Docker ", "Podman ")) and "(API 1." in found["docker"].text
    assert found["image"].text == "spell-test-base:bookworm is on this machine"
    assert {"limits", "storage", "buildkit"} <= set(found)
    assert "docker executor" in found["executor"].text


def test_a_configuration_that_is_wrong(make_spell: Callable[..., Spell]) -> None:
    done = make_spell(config="grace_s = 'long'\n")("doctor")
    assert done.code == 1
    assert "✓ git" in done.out and "✓ home" in done.out and "server logs" not in done.out
    line = next(line for line in done.out.splitlines() if line.startswith("✗"))
    assert line.split()[1] == "config" and "/config.toml: grace_s: Input should be a valid number" in line
    assert "could not be started" not in done.out


def test_a_home_that_cannot_be(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = make_spell()("doctor", env={"SPELL_HOME": f"{tmp_path}/file/home"})
    assert done.code == 1
    assert "✗ home" in done.out and "Choose another one with SPELL_HOME=…" in done.out


def test_programs_that_are_not_there_or_hang(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    spell, tools = make_spell(), tmp_path / "tools"
    tools.mkdir()
    spell("server", "start")
    done = spell("doctor", env={"PATH": str(tools)})
    assert done.code == 1 and "✗ git" in done.out and "Install git." in done.out
    (tools / "git").write_text(f"#!/bin/sh\nexec {shutil.which('sleep')} 100\n")
    (tools / "git").chmod(0o755)
    began = time.monotonic()
    assert "✗ git" in spell("doctor", env={"PATH": str(tools)}).out
    assert time.monotonic() - began < 20


def test_a_server_that_hangs(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell()
    spell("server", "start")
    with spell.frozen():
        began = time.monotonic()
        done = spell("doctor")
    assert time.monotonic() - began < 40
    assert done.code == 1 and "✗ server" in done.out and "The server does not answer." in done.out


class Away(FakeExecutor):
    """Can run nothing, and takes its time to say why."""

    def lacks(self) -> str:
        return "its machines are away."

    def checks(self, gpus: int) -> Iterator[CheckRecord]:
        yield CheckRecord("first", "ok", "seen")
        threading.Event().wait(60)


@pytest.mark.server
def test_an_executor_that_hangs_or_can_run_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, {"fake": Away()}, Capacity(8, 8 << 30, ())) as client:
        began = time.monotonic()
        found = {item.name: item for item in client.doctor.examine()}
        assert time.monotonic() - began < 15
    assert (found["executor"].status, "its machines are away." in found["executor"].text) == ("fail", True)
    assert found["first"].status == "ok"
    assert (found["fake"].status, found["fake"].text) == ("warn", "did not answer within 8 s")


# -- the engine -------------------------------------------------------------------------------------------------------


class Told:
    """An engine's API that answers what it was given."""

    def __init__(self, info: dict[str, object], exit_code: int = 0) -> None:
        self._info, self._exit_code = info, exit_code
        self.names: list[str] = []

    def info(self) -> dict[str, object]:
        return self._info

    def version(self, api_version: bool = True) -> dict[str, object]:
        return {"Version": "4.5.6", "ApiVersion": "1.41", "Components": [{"Name": "Podman Engine"}]}

    def create_host_config(self, **options: object) -> dict[str, object]:
        return dict(HostConfig("1.41", **options))

    def inspect_image(self, name: str) -> dict[str, object]:
        return {}

    def create_container(self, image: str, command: list[str], name: str, **_options: object) -> None:
        self.names.append(name)

    def start(self, name: str) -> None:
        assert self.names == [name]

    def wait(self, name: str, timeout: float) -> dict[str, int]:
        return {"StatusCode": self._exit_code}

    def remove_container(self, name: str, **_options: object) -> None:
        self.names.remove(name)


@pytest.mark.parametrize(
    ("info", "gpus", "expected"),
    [
        ({"CgroupVersion": "2", "Driver": "overlay2"}, 0, {"limits": "ok", "storage": "ok"}),
        ({"MemoryLimit": False, "PidsLimit": False}, 0, {"limits": "warn"}),
        ({"Driver": "vfs"}, 0, {"storage": "warn"}),
        ({"Runtimes": {"runc": {}}}, 2, {"gpu runtime": "warn"}),
        ({"Runtimes": {"runc": {}, "nvidia": {}}}, 2, {"gpu runtime": "ok"}),
        ({"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}, 1, {"gpu runtime": "ok"}),
    ],
)
def test_what_engines_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: dict[str, object], gpus: int, expected: dict[str, str]
) -> None:
    engine = Engine(Home(tmp_path), "unix:///the/engine")
    monkeypatch.setattr(engine, "lacks", lambda: "")
    engine.__dict__["api"] = Told(info)
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: None)
    found = {item.name: item for item in docker_checks.checks(engine, DockerConfig(), gpus, {})}
    assert found["docker"].text == "Podman 4.5.6 (API 1.41) at unix:///the/engine"
    assert expected.items() <= {name: item.status for name, item in found.items()}.items()
    assert all(item.cure for item in found.values() if item.status == "warn")
    assert ("gpu runtime" in found) == bool(gpus)


@pytest.mark.parametrize(
    ("options", "user", "namespace", "security"),
    [
        ([], f"{os.getuid()}:{os.getgid()}", None, ("no-new-privileges",)),
        (["name=rootless"], "0:0", None, ("no-new-privileges",)),
        (["name=userns"], f"{os.getuid()}:{os.getgid()}", "host", ("no-new-privileges",)),
        (["name=selinux"], f"{os.getuid()}:{os.getgid()}", None, ("no-new-privileges", "label=disable")),
    ],
)
def test_who_a_container_runs_as(
    tmp_path: Path, options: list[str], user: str, namespace: str | None, security: tuple[str, ...]
) -> None:
    engine = Engine(Home(tmp_path), "unix:///the/engine")
    engine.__dict__["info"] = {"SecurityOptions": ["name=seccomp,profile=default", *options]}
    assert (engine.user, engine.user_namespace, engine.security_options) == (user, namespace, security)
    asked = {"userns_mode": "other", "cap_drop": [], "security_opt": ["label=x"], "pids_limit": -1, "dns": ["1.2.3.4"]}
    held = {"cap_drop": ["ALL"], "security_opt": [*security, "label=x"], "pids_limit": 7}
    assert engine.confinement(7, asked) == asked | held
    assert engine.confinement() == held | {"security_opt": [*security], "pids_limit": None, "userns_mode": namespace}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dns": ["10.0.0.53"]}, ""),
        ({"dns": ["10.0.0.53"], "security_opt": ["seccomp=x"], "network_mode": "host", "cap_drop": []}, ""),
        ({"no_such": 1}, "[docker.options]: "),
        ({"dns": 5, "mem_swappiness": "much"}, "[docker.options]: "),
    ],
)
def test_options_that_the_sdk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], words: str
) -> None:
    engine = Engine(Home(tmp_path), "unix:///the/engine")
    monkeypatch.setattr(engine, "lacks", lambda: "")
    engine.__dict__["api"] = Told({})
    found = list(docker_checks.checks(engine, DockerConfig(options=options), 0, {}))
    told = [(item.status, item.text) for item in found if item.name == "options"]
    assert [(status, text.startswith(words)) for status, text in told] == [("fail", True)] * bool(words)
    assert all(name in text for _, text in told for name in options if name != "dns")
    assert [item.status for item in found if item.name == "container"] == ([] if words else ["ok"])


def test_an_engine_that_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        began = time.monotonic()
        found = list(docker_checks.checks(Engine(Home(tmp_path), f"unix://{path}"), DockerConfig(), 0, {}))
    assert time.monotonic() - began < 5
    assert [(item.name, item.status) for item in found] == [("docker", "warn")]
    assert "No Docker engine answers" in found[0].text


@contextlib.contextmanager
def slow_engine(path: Path) -> Iterator[Callable[[], int]]:
    """Nobody answers there; tells how often somebody has asked."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        deaf.setblocking(False)
        asked: list[socket.socket] = []

        def count() -> int:
            with contextlib.suppress(BlockingIOError):
                while True:
                    asked.append(deaf.accept()[0])
            return len(asked)

        yield count


def test_one_asks_an_engine_that_hangs_and_nobody_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with slow_engine(tmp_path / "sock") as count:
        engine = Engine(Home(tmp_path), f"unix://{tmp_path}/sock")
        with ThreadPoolExecutor(8) as pool:
            began = time.monotonic()
            assert all(pool.map(lambda _: engine.lacks(), range(8)))
            assert (count(), time.monotonic() - began < 3) == (1, True), "all wait for the first answer"
            engine._asked_at -= 60
            monkeypatch.setattr(find, "AGAIN_LIMIT_S", 4.0)
            asking = pool.submit(engine.lacks)
            wait_for(lambda: count() == 2, "somebody asks again")
            began = time.monotonic()
            assert all(pool.map(lambda _: engine.lacks(), range(8)))
            assert time.monotonic() - began < 3 and not asking.done(), "the others take the last answer"


def test_an_engine_that_is_started_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "_usual_places", lambda env: [Path(env["HOME"], "sock")])
    monkeypatch.setattr(find, "answers", lambda host, _limit_s: host == f"unix://{tmp_path}/sock")
    engine = Engine(Home(tmp_path), env={"HOME": str(tmp_path)})
    assert engine.lacks() == "No Docker engine was found."
    (tmp_path / "sock").touch()
    engine._asked_at += 30  # just now
    assert engine.lacks(), "the last answer is still good"
    engine._asked_at -= 60
    assert (engine.lacks(), engine.host, engine.is_named) == ("", f"unix://{tmp_path}/sock", False)


def test_what_is_known_of_an_engine_that_does_not_answer_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "answers", lambda _host, _limit_s: answers)
    engine = Engine(Home(tmp_path), "unix:///the/engine")
    engine.__dict__ |= {"api": Told({}), "info": {"ID": "old"}}
    for answers, known in ((True, True), (False, False)):
        engine._asked_at -= 60
        assert (engine.lacks() == "") == answers
        assert ("api" in engine.__dict__, "info" in engine.__dict__) == (known, known)
