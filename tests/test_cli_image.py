"""`spell image`: the environment of a job file in an image."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from conftest import DEADLINE_S, Spell, wait_for
from engines import containers_of, engine_api, need_engine
from wheels import SlowProject, make_wheel

from orchestrator.engine import Engine
from orchestrator.home import Home
from orchestrator.records.images import ImageRecord
from orchestrator.service.images import Images
from orchestrator.spec.run import RunSpec, to_wire

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    need_engine()
    return make_shared("images", docker=True)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job file that asks for one package, which lies beside it."""
    wheel = make_wheel(tmp_path, "greeting", code="print('baked')\n")
    path = tmp_path / "Greet-me.yaml"
    path.write_text(f"command: python -m greeting\npip: [./{wheel.name}]\n")
    return path


@contextlib.contextmanager
def removed(tag: str) -> Iterator[None]:
    """The image is not there afterwards."""
    try:
        yield
    finally:
        if engine_api().images(tag):
            engine_api().remove_image(tag, force=True)


def run_in(tag: str, *command: str) -> str:
    """What a command says in a container of an image that knows nothing of spell."""
    engine = engine_api()
    container = engine.create_container(tag, command=list(command))["Id"]
    try:
        engine.start(container)
        engine.wait(container)
        return str(engine.logs(container).decode())
    finally:
        engine.remove_container(container, force=True)


def test_build_and_run_without_spell(shared: Spell, job: Path) -> None:
    with removed("spell/greet-me:latest"):
        done = shared("image", "build", str(job))
        assert done.code == 0, done
        assert "Installing" in done.out, "the build log is shown"
        assert "Warning" not in done.out
        assert "🎉 spell/greet-me:latest is built (sha256:" in done.out
        assert run_in("spell/greet-me:latest", "python", "-m", "greeting") == "baked\n"


def test_json(shared: Spell, job: Path) -> None:
    with removed("greet:1"):
        baked = shared("image", "build", str(job), "--tag", "greet:1", "--json").json()
        assert (baked["tag"], baked["pushed"]) == ("greet:1", False)
        assert engine_api().inspect_image("greet:1")["Id"] == baked["id"]


def test_f27_who_leaves_ends_the_build(shared: Spell) -> None:
    """Also while nothing is said; and the server serves others meanwhile."""
    slow = SlowProject(shared.home.environments / ".containers" / "slow")  # where a container can say how far it is
    spec = RunSpec(command="x", pip=(str(slow.path),))
    body = {"spec": to_wire(spec), "tag": "greet:3", "push": False}
    transport = httpx.HTTPTransport(uds=str(shared.home.socket))
    with httpx.Client(transport=transport, base_url="http://spell", timeout=DEADLINE_S) as client:
        with client.stream("POST", "/images", json=body) as answer:
            said = answer.iter_lines()
            assert any("Installing" in line for line in said)
            assert any(json.loads(line) == {} for line in said)
            assert len(containers_of(shared.home)) == 1
        began = time.monotonic()
        shared.client.server.get()
        assert time.monotonic() - began < 3
    wait_for(lambda: not containers_of(shared.home), "the build ends")
    wait_for(lambda: not list(shared.home.environments.glob(".building-*")), "and leaves nothing")


def test_a_build_that_does_not_end_holds_up_nobody(tmp_path: Path) -> None:
    home, end = Home(tmp_path), threading.Event()
    home.create()
    context: Any = SimpleNamespace(home=home, closing=threading.Event())
    bases: Any = None
    images = Images(context, Engine(home), bases)

    def make(_log: Path, _cancelled: Callable[[], bool]) -> ImageRecord:
        end.wait()
        return ImageRecord("greet:4", "sha256:0", pushed=False)

    async def leave() -> float:
        stream: Any = images._streamed(make)
        assert json.loads(await anext(stream)) == {}
        began = time.monotonic()
        await stream.aclose()
        return time.monotonic() - began

    try:
        assert asyncio.run(leave()) < 1
    finally:
        end.set()
    wait_for(lambda: not list(home.environments.iterdir()), "the folder goes")


def test_what_cannot_be_had_is_told(shared: Spell, job: Path, tmp_path: Path) -> None:
    assert shared("image", "build", str(job), "-t", "Not A Name").code == 3
    assert shared("image", "build", str(tmp_path / "none.yaml")).code == 3
    with removed("localhost:1/greet:1"):
        lost = shared("image", "push", str(job), "-t", "localhost:1/greet:1")
        assert lost.code == 1 and "could not be pushed" in lost.err
    job.write_text("command: x\nmachine_type: nonsense\n")
    wrong = shared("image", "build", str(job), "-t", "greet:2")
    assert (wrong.code, "There is no machine type 'nonsense'." in wrong.err) == (2, True)
    job.write_text("command: x\npip: [./none-1.0-py3-none-any.whl]\n")
    failed = shared("image", "build", str(job), "-t", "greet:2")
    assert failed.code != 0 and "none-1.0" in failed.err
    assert not engine_api().images("greet:2")


def test_without_an_engine(make_spell: Callable[..., Spell], job: Path) -> None:
    spell = make_spell(config='[docker]\nhost = "unix:///there/is/none"\n')
    done = spell("image", "build", str(job))
    assert done.code == 1
    assert "No Docker engine answers" in done.err and "spell doctor" in done.err
