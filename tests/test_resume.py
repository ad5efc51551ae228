"""`spell resume`: an earlier run again, with a copy of its checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Done, Spell, git

from orchestrator.content.files import copy_bytes
from orchestrator.data.blobs import BlobStore
from orchestrator.errors import CodeFailed, Conflict, InvalidConfig, NotFound, SpellError
from orchestrator.home import Home
from orchestrator.lifecycle import checkpoints
from orchestrator.lifecycle.checkpoints import bring
from orchestrator.lifecycle.workdir import WorkDir
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import RunSpec
from orchestrator.spec.validate import read_spec
from orchestrator.store import NewRun, Store
from orchestrator.store.database import Database

CONFIG = "[machine_types.cpu]\ncpus = 0.1\n"
STEP = 'cd "${SPELL_CHECKPOINT_DIR:?}" 2>/dev/null || { mkdir "$SPELL_CHECKPOINT_DIR"; cd "$SPELL_CHECKPOINT_DIR"; }'
GOES_ON = f"{STEP}; n=$(cat step 2>/dev/null || echo 0); n=$((n + 1)); echo $n > step; echo $n > step-$n; echo at $n"
"""Writes over a checkpoint of the run before, and adds one."""


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    return make_shared("resume", config=CONFIG)


@pytest.fixture
def spell(shared: Spell) -> Iterator[Spell]:
    """A home that the tests of this module share; each leaves it without active runs."""
    yield shared
    shared.clear()


def test_a_failed_run_goes_on_from_its_checkpoints(make_spell: Callable[..., Spell], repo: Path) -> None:
    """Typed: the code of then or of now, other options, another command; and what is shown of where it came from."""
    (repo / "train.sh").write_text(f"{GOES_ON}; exit $1\n")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "Train")
    spell = make_spell(cwd=repo)
    first = spell("run", "--label", "l", "--param", "CODE=3", "sh train.sh :CODE:")
    assert (first.code, first.number) == (3, 1)
    (repo / "train.sh").write_text("echo of today $(ls checkpoints | wc -l)\n")
    done = spell("resume", "latest", "--param", "CODE=0", "--timeout", "5m", cwd=repo.parent)
    assert (done.code, "\nat 2\n" in done.out) == (0, True), done
    assert "Begins with runs/1/checkpoints: 2 files, 4 bytes, copied to checkpoints" in done.out
    old, new = (spell.home.run_dir(number) / "checkpoints/step" for number in (1, 2))
    assert (old.read_text(), new.read_text()) == ("1\n", "2\n"), "the earlier run keeps its own"
    assert [path.stat().st_mode & 0o777 for path in (old, new)] == [0o444] * 2
    assert sorted(path.name for path in new.parent.iterdir()) == ["step", "step-1", "step-2"]

    run = spell.client.runs.get(2)
    assert (run.spec["resume"], run.labels, run.mounts, run.rerun_of) == ("runs/1/checkpoints", ["l"], [], None)
    assert (spell.client.runs.get(1).resumed_by, spell.client.runs.get(1).mounted_by) == ([2], [])
    assert "Resumed From  runs/1/checkpoints\n" in spell("info", "2").out
    assert "Resumed As    run 2\n" in spell("info", "1").out
    assert "└─ runs/1/checkpoints copied to checkpoints: run 2 (Complete (0))" in spell("lineage", "1").out
    assert spell("lineage", "2", "--json").json()["edges"][0]["copied"] is True
    assert "  resume: (none) → runs/1/checkpoints\n" in spell("diff", "1", "2").out

    today = spell("resume", "1", "--current-code", "--json")
    assert (today.code, spell.log(today.json()["number"])) == (0, b"of today 2\n")
    other = spell("run", "--resume", "runs/2/checkpoints", "ls checkpoints; test -f train.sh")
    assert (other.code, "\nstep\nstep-1\nstep-2\n" in other.out) == (0, True), other
    again = spell.client.runs.rerun(2)
    assert spell.ended(again.number).spec["resume"] == "runs/1/checkpoints"
    assert spell.log(again.number) == b"at 2\n", "a rerun begins as its run did"
    spell.client.archive.add(1)
    refused(spell("resume", "1"), "Its checkpoints cannot be used: run 1 is archived.")


def refused(done: Done, words: str) -> None:
    assert (done.code != 0, words in done.err) == (True, True), done


def refusal(spell: Spell, reference: int | str, **changes: object) -> SpellError:
    with pytest.raises(SpellError) as caught:
        spell.client.runs.resume(reference, changes)
    return caught.value


def test_what_cannot_be_resumed_is_refused_before_it_has_a_number(spell: Spell) -> None:
    none = spell.run("mkdir output; echo 1 > output/x; echo 1 > y").number
    killed = spell.cast(f"{GOES_ON}; sleep 1000")
    spell.says(killed, b"at 1")
    error = refusal(spell, killed)
    assert isinstance(error, Conflict) and error.message == f"Run {killed} is still running, so it cannot be resumed."
    assert f"spell stop {killed}" in error.cure
    spell.client.runs.kill(killed)
    spell.ended(killed)
    error = refusal(spell, killed)
    assert error.message == f"Run {killed} was killed, so its checkpoints are lost."
    assert error.cure == f"Begin anew: spell rerun {killed}"
    error = refusal(spell, none)
    assert error.message == f"Run {none} left no checkpoints: its outputs have no folder 'checkpoints'."
    assert f"Begin anew: spell rerun {none}\nIf they lie in another folder (spell ls runs/{none}): " in error.cure
    assert isinstance(refusal(spell, f"runs/{none}/y"), InvalidConfig)
    assert isinstance(refusal(spell, "nobody"), NotFound)
    for wrong in ("../x", "/x", "."):
        assert isinstance(refusal(spell, none, checkpoints=wrong), InvalidConfig)
    mount = {"resource": f"runs/{none}/output", "path": "output"}
    error = refusal(spell, none, checkpoints="output/deeper", mounts=[mount], resume=f"runs/{none}/output")
    assert "The mount at 'output' is in the way of the checkpoints" in error.message
    for words in (("run", "--resume", str(none), "--reuse"), ("run", "--current-code", "true")):
        assert spell(*words).code == 2
    assert len(spell.client.runs.list()) == 2


def test_a_folder_of_ones_own(spell: Spell) -> None:
    """`--checkpoints`: what a retry finds and `resume` carries over, also from a run that did not say it; a stopped run."""
    plain = spell.cast("mkdir -p out/put; echo 7 > out/put/step; echo ready; sleep 1000")
    spell.says(plain, b"ready")
    spell.client.runs.stop(plain)
    assert spell.ended(plain).state == "stopped"
    command = f"{GOES_ON}; [ $n = 9 ]"
    changes = {"command": command, "checkpoints": "out/put", "retries": 1}
    resumed = spell.ended(spell.client.runs.resume(plain, changes).number)
    assert (resumed.state, resumed.attempt, resumed.spec["resume"]) == ("complete", 2, f"runs/{plain}/out/put")
    assert spell.log(resumed.number).startswith(b"at 8\n") and spell.log(resumed.number).endswith(b"at 9\n")
    again = spell.ended(spell.client.runs.resume(resumed.number, {"retries": 0}).number)
    assert (again.exit_code, spell.log(again.number)) == (1, b"at 10\n")
    assert not (spell.home.run_dir(again.number) / "checkpoints").exists()


def test_runs_that_others_cast_begin_with_checkpoints_too(spell: Spell, tmp_path: Path) -> None:
    """Job files, searches and workflows; `--reuse` tells them apart, and an export brings what they began with."""
    first = spell.run(GOES_ON, name="first").number
    (tmp_path / "job.yaml").write_text(f"command: cat checkpoints/step\nresume: {first}\n")
    job = spell("run", "--no-code", "--file", "job.yaml", cwd=tmp_path)
    assert (job.code, spell.log(job.number)) == (0, b"1\n"), job
    spec = RunSpec("cat checkpoints/step", resume="first")
    assert spell.client.runs.cast(spec, reuse=True).number == job.number
    assert not spell.client.runs.cast(RunSpec("cat checkpoints/step"), reuse=True).reused
    search = spell("hyper", "grid", "--resume", "first", "--param", "X=5,6", "cat checkpoints/step; echo :X:")
    assert search.code == 0, search
    assert [spell.log(job.number + more) for more in (2, 3)] == [b"1\n5\n", b"1\n6\n"]
    (tmp_path / "chain.yaml").write_text("steps:\n  one: {file: job.yaml}\n")
    assert spell("workflow", "chain.yaml", cwd=tmp_path).code == 0
    assert spell("export", str(job.number), "--with-inputs", "-o", "x.tar", cwd=tmp_path).code == 0
    with tarfile.open(tmp_path / "x.tar") as tar:
        names = [name.partition("/")[2] for name in tar.getnames()]
        readme = next(item for item in tar if item.name.endswith("/README.md"))
        text = (tar.extractfile(readme) or pytest.fail("it is no file")).read().decode()
    assert f"inputs/runs/{first}/checkpoints/step" in names
    assert f'-v "$PWD"/inputs/runs/{first}/checkpoints:/spell/checkpoints spell-run' in text


def test_what_is_copied(tmp_path: Path) -> None:
    """Links that lead out become files, others stay; what the code has there gives way; times; holes; nothing outside."""
    outputs, code = tmp_path / "7", tmp_path / "code"
    for step in (100, 50):
        (outputs / f"ck/step-{step}").mkdir(parents=True)
        (outputs / f"ck/step-{step}/w").write_text(str(step))
        os.utime(outputs / f"ck/step-{step}/w", (step, step))
    (outputs / "best").write_text("best")
    (outputs / "ck/best").symlink_to("../best")
    (outputs / "ck/last").symlink_to("step-100")
    (outputs / "ck/away").symlink_to("/etc/passwd")
    (outputs / "ck/step-50/w").chmod(0o555)
    outside = tmp_path / "outside"
    outside.mkdir()
    (code / "ck").mkdir(parents=True)
    (code / "ck/step-50").symlink_to(outside)
    (code / "ck/best").mkdir()
    (code / "ck/kept").write_text("of the code")
    assert bring(outputs / "ck", outputs, code, "ck", lambda: False) == (3, 9)
    target = code / "ck"
    assert sorted(os.listdir(target)) == ["best", "kept", "last", "step-100", "step-50"]
    assert (target / "best").read_text() == "best" and not (target / "best").is_symlink()
    assert os.readlink(target / "last") == "step-100"
    assert [(target / f"step-{step}").stat().st_mtime for step in (50, 100)] == [50, 100]
    assert [(target / f"step-{step}/w").stat().st_mode & 0o777 for step in (50, 100)] == [0o755, 0o644]
    assert os.listdir(outside) == []
    (code / "led").symlink_to(outside)
    with pytest.raises(CodeFailed, match="leads out of the code through a link"):
        bring(outputs / "ck", outputs, code, "led/ck", lambda: False)
    shutil.rmtree(outside)

    sparse, copy = tmp_path / "sparse", tmp_path / "copy"
    with sparse.open("wb") as file:
        file.seek(8 << 20)
        file.write(b"x" * 5000)
        file.truncate(16 << 20)
    copy_bytes(sparse, copy)
    assert copy.read_bytes() == sparse.read_bytes()
    assert copy.stat().st_blocks <= sparse.stat().st_blocks + 16


def test_a_mount_inside_checkpoints_is_no_obstacle(spell: Spell) -> None:
    first = spell.run(GOES_ON).number
    mounts = (Mount(f"runs/{first}/checkpoints/step", "checkpoints/mounted"),)
    run = spell.run(
        "cat checkpoints/step checkpoints/mounted; echo 2 > checkpoints/step", mounts=mounts, resume=str(first)
    )
    assert (run.state, spell.log(run.number)) == ("complete", b"1\n1\n")


def test_a_crash_while_they_are_copied_leaves_no_half_of_them(
    spell: Spell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server dies after the first file; the next one makes the work dir again, from all of them."""
    first = spell.run(GOES_ON)
    spec = dataclasses.replace(read_spec(first.spec), resume=f"runs/{first.number}/checkpoints")
    home = Home(tmp_path / "home")
    home.create()
    shutil.copytree(spell.home.run_dir(first.number), home.run_dir(first.number))
    with contextlib.closing(Database(home.database)) as database:
        store = Store(database)
        run = store.claimed(store.add(NewRun(dataclasses.replace(spec, resume=""), "process", 0.1, None, 0)))
        context: Any = SimpleNamespace(home=home, blobs=BlobStore(home), store=store, firmly=lambda write: write())
        place = WorkDir(context, run, spec)
        real = checkpoints.copy_bytes

        def crashing(source: Path, target: Path) -> None:
            real(source, target)
            raise SystemExit

        monkeypatch.setattr(checkpoints, "copy_bytes", crashing)
        with pytest.raises(SystemExit):
            place.make()
        monkeypatch.setattr(checkpoints, "copy_bytes", real)
        folder = place.root / "code/checkpoints"
        assert len(os.listdir(folder)) == 1
        place.make()
        assert sorted(os.listdir(folder)) == ["step", "step-1"]
        (folder / "step").write_text("2\n")
        place.make()
        assert (folder / "step").read_text() == "2\n", "a later attempt has its own"
