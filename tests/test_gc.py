"""`spell gc`: what nobody uses any more goes, and nothing else."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell, wait_for
from engines import TEST_IMAGE, containers_of, engine_api
from servers import serving

from orchestrator.engine import EngineError
from orchestrator.executors.fake import FakeExecutor
from orchestrator.machine import Capacity
from orchestrator.records.gc import RemovedRecord
from orchestrator.spec.run import RunSpec
from orchestrator.store import Store

DAY_S = 86400


def environments(spell: Spell) -> list[str]:
    """The keys of all environments that there are."""
    return sorted(path.name for path in spell.home.environments.iterdir() if not path.name.startswith("."))


def grow_old(spell: Spell, key: str, days: float) -> None:
    """Make an environment one that was used so many days ago."""
    moment = time.time() - days * DAY_S
    os.utime(spell.home.environment(key), (moment, moment))


@pytest.fixture
def spell(make_spell: Callable[..., Spell]) -> Spell:
    """A home of processes, on a machine for several runs."""
    return make_spell(config="[machine_types.small]\ncpus = 0.1\n")


def test_environments(spell: Spell) -> None:
    assert spell("gc").out == "Freed 0B.\n"
    ended = spell.run("true", machine_type="small")
    assert ended.environment and environments(spell) == [ended.environment]
    assert spell("gc").out == "Freed 0B.\n"  # it was used today
    grow_old(spell, ended.environment, 3)
    assert spell("gc").out == "Freed 0B.\n"
    told = spell("gc", "--older-than", "2.5", "--dry-run")
    assert (told.code, told.err) == (0, "")
    assert told.out.splitlines()[0].split() == ["SIZE", "WHAT"]
    assert f"environment {ended.environment}" in told.out and told.out.splitlines()[-1].startswith("Would free ")
    assert environments(spell) == [ended.environment]
    done = spell("gc", "--older-than", "2.5", "--json").json()
    assert [item["what"] for item in done["removed"]] == [f"environment {ended.environment}"]
    assert (done["removed"][0]["size_bytes"] >= 0, done["warnings"]) == (True, [])
    assert environments(spell) == []
    again = spell.run("python -c 'print(7)'", machine_type="small")
    assert (again.environment, again.state) == (ended.environment, "complete")


def test_what_an_active_run_uses_stays(spell: Spell) -> None:
    number = spell.cast("echo up; sleep 1000", machine_type="small")
    spell.says(number, b"up")
    key = spell.client.runs.get(str(number)).environment
    assert key is not None
    grow_old(spell, key, 100)
    assert spell("gc", "--older-than", "0").out == "Freed 0B.\n"
    assert environments(spell) == [key]
    spell.client.runs.kill(str(number))
    spell.ended(number)
    wait_for(
        lambda: spell("gc", "--older-than", "0").out.splitlines()[-1] != "Freed 0B." or not environments(spell), "it"
    )
    assert environments(spell) == []


def test_outputs_stay(spell: Spell) -> None:
    spell.run("echo 1 > data.txt", machine_type="small")
    spell("gc", "--older-than", "0")
    assert spell("cat", "runs/1/data.txt").out == "1\n"
    assert spell("logs", "1").code == 0


def test_wrong_use(spell: Spell) -> None:
    for words in (["--older-than", "-1"], ["--older-than", "week"], ["now"]):
        assert spell("gc", *words).code == 2, words


class Mourning(FakeExecutor):
    """One whose engine has gone."""

    def gc(self, keep: set[str], older_than_s: float, *, dry_run: bool) -> list[RemovedRecord]:
        raise EngineError("the Docker engine does not answer")


@pytest.mark.server
def test_what_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, {"fake": Mourning()}, Capacity(8, 8 << 30, ())) as client:
        client.runs.wait(str(client.runs.cast(RunSpec(command="exit 0")).number))
        found = client.gc.remove(0.0)
    assert found.warnings == ["the Docker engine does not answer"]
    assert [item.what.split()[0] for item in found.removed] == ["environment"]


@pytest.mark.server
def test_what_a_run_takes_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins right after the store has said what is in use."""
    asked = Store.in_use

    def in_use(store: Store) -> tuple[set[str], set[str]]:
        found = asked(store)
        for path in (tmp_path / "store" / "environments").glob("[0-9a-f]*"):
            os.utime(path)
        return found

    with serving(tmp_path, {"fake": FakeExecutor()}, Capacity(8, 8 << 30, ())) as client:
        client.runs.wait(str(client.runs.cast(RunSpec(command="exit 0")).number))
        with monkeypatch.context() as patched:
            patched.setattr(Store, "in_use", in_use)
            assert client.gc.remove(0.0).removed == []
        wait_for(lambda: client.gc.remove(0.0).removed, "it is no longer in use")


@pytest.mark.engine
def test_containers_and_images(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(docker=True, config="[machine_types.small]\ncpus = 0.1\n")
    number = spell.cast("echo up; sleep 1000", machine_type="small")
    spell.says(number, b"up")
    (own,) = containers_of(spell.home)
    labels = {name: own["Labels"][name] for name in ("spell.home", "spell.key")}
    left = engine_api().create_container(
        TEST_IMAGE,
        ["true"],
        name="-".join([*own["Names"][0].strip("/").split("-")[:2], "4711", "a1", "0"]),
        labels=labels | {"spell.role": "run", "spell.run": "4711", "spell.attempt": "1"},
    )["Id"]
    line = f"FROM {TEST_IMAGE}\nLABEL " + " ".join(
        f'{name}="{value}"' for name, value in (labels | {"spell.role": "image"}).items()
    )
    tag = f"spell:test-gc-{os.getpid()}"
    subprocess.run(["docker", "build", "-q", "-t", tag, "-"], input=line.encode(), check=True, capture_output=True)
    try:
        assert f"image {tag}" in spell("gc", "--older-than", "0", "--dry-run").out
        assert len(containers_of(spell.home)) == 2
        assert tag not in spell("gc").out  # it was made today
        assert f"image {tag}" in spell("gc", "--older-than", "0").out
        assert not engine_api().images(tag)
        assert engine_api().images(TEST_IMAGE)
        assert left not in [item["Id"] for item in containers_of(spell.home)]
        assert spell.client.runs.get(str(number)).state == "running"
        assert len(containers_of(spell.home)) == 1
    finally:
        if engine_api().images(tag):
            engine_api().remove_image(tag)
