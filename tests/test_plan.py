"""`spell run --dry-run`: what a cast would do, without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell, git, wait_for
from engines import TEST_IMAGE
from servers import serving

from orchestrator.executors.fake import FakeExecutor
from orchestrator.machine import Capacity
from orchestrator.spec.run import RunSpec

SMALL = "[machine_types.small]\ncpus = 0.1\n"


def facts(out: str) -> dict[str, str]:
    """What the lines say, by their first words."""
    lines = [line.split("  ", 1) for line in out.splitlines() if "  " in line]
    return {name: value.strip() for name, value in lines}


def test_what_a_run_would_be(make_spell: Callable[..., Spell], repo: Path) -> None:
    spell = make_spell(cwd=repo, config=SMALL)
    assert spell("run", "-t", "small", "mkdir out; echo 1 > out/x", "--name", "made").code == 0
    (repo / "more.txt").write_text("x" * 1000)
    git(repo, "add", "more.txt")
    words = ["-t", "small", "-m", "runs/made/out:data", "-e", "A=secret", "--timeout", "5m", "python hello.py"]
    looked = spell("run", "--dry-run", *words)
    assert looked.code == 0, looked.err
    found = facts(looked.out)
    assert (found["Command"], found["Executor"], found["Machine Type"]) == (
        "python hello.py",
        "process",
        "small: 0.1 cores",
    )
    assert (found["Mount"], found["Env"], found["Timeout"]) == ("runs/1/out, a folder, at data", "A=***", "5m0s")
    assert found["Code"].startswith("2 files of project, 1015B") and "1 file, " in found["Code"], found["Code"]
    assert found["Starts"] == "at once" and found["Environment"].endswith("which is there"), found
    as_json = spell("run", "--dry-run", "--json", *words).json()
    assert as_json["code"]["files"] == 2 and as_json["code"]["new_files"] == 1 and as_json["code"]["new_bytes"] > 1000
    assert as_json["spec"]["mounts"] == [{"resource": "runs/1/out", "path": "data"}]
    assert (as_json["environment_state"], as_json["image"], as_json["reused"]) == ("ready", "", None)
    assert "would be built" in facts(spell("run", "--dry-run", "--pip", "six==1.17.0", "true").out)["Environment"]
    assert spell("run", *words).number == 2, "no number was spent"
    assert "the server has all of it" in spell("run", "--dry-run", *words).out
    assert "run 2 is identical" in spell("run", "--dry-run", "--reuse", *words).out
    (repo / "job.yaml").write_text("command: 'true'\nmachine_type: small\n")
    assert (
        facts(spell("run", "--dry-run", "--file", "job.yaml", "--resume", "runs/1/out").out)["Resume"] == "runs/1/out"
    )
    assert "--dry-run does not go with --resume" in spell("run", "--dry-run", "--resume", "1").err
    for refused in (["-m", "runs/99"], ["--pip", "./missing.whl"], ["-t", "none"], ["--secret", "NONE"]):
        cast, looked = spell("run", *refused, "true"), spell("run", "--dry-run", *refused, "true")
        assert looked.code == cast.code != 0 and looked.err == cast.err, (refused, looked.err, cast.err)


@pytest.mark.server
def test_what_it_would_wait_for(tmp_path: Path) -> None:
    config = (
        "[machine_types.half]\ncpus = 1\n[machine_types.whole]\ncpus = 2\n[machine_types.one]\ncpus = 0.1\ngpus = 1\n"
    )
    with serving(tmp_path / "home", {"fake": FakeExecutor()}, Capacity(2, 1 << 30, (0,)), config) as client:

        def waits(machine_type: str) -> str:
            return client.runs.plan(RunSpec("exit 0", machine_type=machine_type)).waits_for

        def cast(machine_type: str) -> int:
            return client.runs.cast(RunSpec("hang", machine_type=machine_type)).number

        assert (waits("half"), waits("one")) == ("", "")
        first = cast("one")
        wait_for(lambda: client.runs.get(first).state == "running", "the run")
        assert waits("one") == f"1 GPU, which run {first} holds; 1st in the queue" and waits("half") == ""
        second = cast("one")
        assert waits("one").endswith("2nd in the queue") and waits("half") == "", "it passes one that waits for a GPU"
        third = cast("whole")
        assert waits("half") == f"run {second}, which is before it; 3rd in the queue"
        assert client.runs.get("latest").number == third, "no number was spent"


@pytest.mark.engine
def test_in_a_container(docker_spell: Spell) -> None:
    there = docker_spell.client.runs.plan(RunSpec("true"))
    assert (there.executor, there.image, there.image_state) == ("docker", TEST_IMAGE, "ready")
    plan = docker_spell.client.runs.plan(RunSpec("true", apt=("no-such-package",)))
    assert plan.image_state in ("build", "ready") and (plan.environment, plan.environment_state) == ("", "unknown")
    away = docker_spell.client.runs.plan(RunSpec("true", image="127.0.0.1:1/none:1"))
    assert (away.image, away.image_state, away.environment_state) == ("127.0.0.1:1/none:1", "pull", "unknown")
    done = docker_spell.run("true")
    known = docker_spell.client.runs.plan(RunSpec("true"))
    assert (known.environment, known.environment_state) == (done.environment, "ready")
