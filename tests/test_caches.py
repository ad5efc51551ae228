"""What tools in runs keep for later runs: shared, bounded, apart from what is only of one run; and the time of code."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell, git

from orchestrator.content.manifest import time_of
from orchestrator.data import caches
from orchestrator.data.caches import TOOLS, Item, gc, items
from orchestrator.home import Home

DAY_S = 86400.0
NAMES = [tool.variable for tool in TOOLS]
SHOW = "python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"


def variables(spell: Spell, number: int) -> dict[str, str]:
    """The variables that a run has shown with `SHOW`."""
    return dict(json.loads(spell.log(number).splitlines()[-1]))


def test_what_a_run_keeps_later_runs_have(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    spell = make_spell(
        config=f'[caches.folders]\nMY_MODELS = "{own}"\nMY_DATA = "mine"\nWANDB_CACHE_DIR = ""\n',
        HF_TOKEN_PATH="/nowhere",  # of the server: runs do not get it
    )
    root = spell.home.caches / "owner"
    first = spell.run(
        f"echo 1 > $HF_HOME/model; echo 2 > $MY_MODELS/big; rm -r $TORCH_HOME; ln -s /etc $TORCH_HOME; {SHOW}"
    )
    found = variables(spell, first.number)
    assert (first.state, first.outputs_count) == ("complete", 0), "what lies in a cache is no output"
    assert {name: found[name] for name in NAMES if name in found} == {
        tool.variable: f"{root}/{tool.folder}" for tool in TOOLS if tool.folder != "wandb"
    }
    assert (found["MY_MODELS"], found["MY_DATA"], found["UV_LINK_MODE"]) == (str(own), f"{root}/mine", "copy")
    assert found["HF_TOKEN_PATH"] == f"{found['HOME']}/.cache/huggingface/token", "no login of a run is one of all"
    second = spell.run(
        f"cat $HF_HOME/model $MY_MODELS/big && ! touch $HF_HOME/x && ! touch $MY_MODELS/x && test ! -L $TORCH_HOME && {SHOW}",
        caches="read-only",
    )
    found = variables(spell, second.number)
    assert second.state == "complete", spell.log(second.number)
    assert spell.log(second.number).startswith(b"1\n2\n") and "PIP_CACHE_DIR" not in found
    assert found["HF_DATASETS_CACHE"] == f"{found['HOME']}/.cache/huggingface/datasets", "it locks what it reads"
    third = variables(spell, spell.run(SHOW, env={"HF_HOME": "/given", "PIP_CACHE_DIR": "p"}).number)
    assert (third["HF_HOME"], third["PIP_CACHE_DIR"], "HF_TOKEN_PATH" in third) == ("/given", "p", False)
    assert not {*NAMES, "MY_MODELS"} & variables(spell, spell.run(SHOW, caches="off").number).keys()
    assert "caches      the caches of runs take" in spell("doctor").out
    (own / "big").unlink()
    own.rmdir()
    refused = spell("run", "true")
    assert refused.code == 3 and f"The folder {own} for MY_MODELS" in refused.err and "--caches off" in refused.err
    assert spell.client.runs.get("latest").number == 4, "no number is spent"


@pytest.mark.engine
def test_containers_have_the_same_caches(docker_spell: Spell) -> None:
    write = "echo 1 > $TORCH_HOME/model; stat -c %u $TORCH_HOME/model"
    assert docker_spell.run(write, executor="process").state == "complete"
    said = "cat $TORCH_HOME/model && echo 2 > $TORCH_HOME/model && echo $TORCH_HOME $HF_TOKEN_PATH"
    run = docker_spell.run(said)
    assert run.state == "complete", docker_spell.log(run.number)
    words = "1\n/opt/spell/caches/torch /home/spell/.cache/huggingface/token\n"
    assert docker_spell.log(run.number).decode() == words
    reading = docker_spell.run("cat $TORCH_HOME/model && ! touch $TORCH_HOME/model", caches="read-only")
    assert (reading.state, docker_spell.log(reading.number)[:2]) == ("complete", b"2\n")
    model = docker_spell.home.caches / "owner" / "torch" / "model"
    assert model.stat().st_uid == os.getuid()


def place(home: Home, path: str, days: float, kib: int = 8) -> Path:
    """Make a file of a cache that was last used so many days ago."""
    file = home.caches / "owner" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(os.urandom(kib << 10))
    os.utime(file, (time.time() - days * DAY_S,) * 2)
    return file


def test_what_is_unused_goes_first_and_what_a_run_uses_stays(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    old = place(home, "huggingface/hub/models--old/blobs/1", 20)
    (old.parents[1] / "snapshots").mkdir()
    place(home, "huggingface/hub/models--new/blobs/1", 2)
    place(home, "huggingface/hub/.locks/models--old/1.lock", 20)
    place(home, "torch/hub/checkpoints/a.pth", 9)
    place(home, "torch/hub/checkpoints/b.pth", 3)
    place(home, "pip/http-v2/1", 30)
    place(home, "pip/http-v2/2", 1)
    place(home, "uv/archive-v0/1/six.py", 6)
    place(home, "uv/wheels-v8/pypi/six", 40)
    (home.caches / "owner" / "nltk" / "corpora").mkdir(parents=True)
    (home.caches / "other" / "uv").mkdir(parents=True)
    names = [str(item.path.relative_to(home.caches / "owner")) for item in items(home)]
    assert names == [
        "pip/http-v2",
        "huggingface/hub/models--new",
        "torch/hub/checkpoints/b.pth",
        "uv",
        "torch/hub/checkpoints/a.pth",
        "huggingface/hub/models--old",
    ]
    now = time.time()

    def gone(days: float, keep_kib: int | None, busy_days: float | None) -> list[str]:
        busy = None if busy_days is None else now - busy_days * DAY_S
        keep = None if keep_kib is None else keep_kib << 10
        found = gc(home, now - days * DAY_S, keep, busy, dry_run=True)
        assert all(item.kind == "cache" and item.size_bytes >= 8192 for item in found)
        return [item.what.rpartition("/")[2] for item in found]

    assert gone(7, None, None) == ["a.pth", "models--old"]
    assert gone(7, None, 12) == ["models--old"], "a run of 12 days may use what was used since then"
    assert gone(0, None, 0.01) == ["models--new", "b.pth", "cache uv", "a.pth", "models--old"], (
        "a time of access may be a day old"
    )
    assert gone(100, 48, None) == ["a.pth", "models--old"]
    assert gone(100, 1, 100) == []
    old_items = gc(home, now - 7 * DAY_S, None, None, dry_run=False)
    assert len(old_items) == 2 and not old.parents[1].exists() and not list(home.removed.iterdir())
    assert (home.caches / "owner" / "huggingface" / "hub" / ".locks").exists()


def test_a_link_that_appears_before_the_removal_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that may write to the caches could have gc remove outputs of any run."""
    home = Home(tmp_path / "home")
    home.create()
    kept = home.runs / "7" / "model"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    os.utime(kept, (0, 0))
    hub = place(home, "huggingface/hub/7/blob", 20).parents[1]
    place(home, "torch/old", 20)

    def swapped(home: Home) -> list[Item]:
        found = items(home)
        hub.rename(hub.parent / "was")
        hub.symlink_to(home.runs)
        return found

    monkeypatch.setattr(caches, "items", swapped)
    removed = gc(home, time.time(), None, None, dry_run=False)
    assert kept.read_bytes() == b"weights"
    assert [item.what for item in removed] == ["cache torch/old"], "the rest is removed all the same"


def test_caches_above_their_limit_shrink_and_gc_empties_them(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config="[caches]\nlimit_gb = 0.0001\n[machine_types.small]\ncpus = 0.1\n")
    home = Home(spell.home.root)
    home.create()
    place(home, "torch/old", 5, 64)
    place(home, "torch/new", 4, 64)
    number = spell.cast("head -c 200000 /dev/urandom > $TORCH_HOME/used; echo up; sleep 1000", machine_type="small")
    spell.says(number, b"up")
    told = spell("gc", "--only", "caches", "--older-than", "0", "--dry-run", "--json").json()
    assert [item["what"] for item in told["removed"]] == ["cache torch/new"], (
        "the older one went when the server started"
    )
    assert told["caches_bytes"] >= 260_000
    spell("gc", "--only", "caches", "--older-than", "0")
    assert (home.caches / "owner" / "torch" / "used").exists() and not (
        home.caches / "owner" / "torch" / "new"
    ).exists()
    doctor = spell("doctor").out
    assert "limit_gb of [caches] allows" in doctor and "spell gc --only caches --older-than 0" in doctor
    spell.client.runs.kill(str(number))
    spell.ended(number)
    spell("gc", "--keep-size", "100", "--only", "caches")
    assert not items(home)


def test_all_files_of_a_code_have_one_time_and_those_of_other_code_another(spell: Spell, repo: Path) -> None:
    """`make` finds committed files up to date, as in a clone, and tools that take path and time for the content see each change."""
    (repo / "Makefile").write_text("out: in\n\techo made again\nin: out2\n\techo made again\nout2:\n")
    for name, text in (
        ("in", "a\n1\n"),
        ("out", "0"),
        ("out2", "0"),
        ("same", "x = 1\n"),
        ("other", "y = 2\n"),
        ("third", "z = 3\n"),
    ):
        (repo / name).write_text(text)
    (repo / "link").symlink_to("same")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "code")
    moves = "cp -p same copy; touch -r in in; cp -p other same; mv third other; cp -p same third"
    found = []
    for text in ("a\n1\n", "a\n2\n"):
        (repo / "in").write_text(text)
        done = spell("run", f"stat -c '%Y %y' *; if command -v make; then make out; fi; {moves}", cwd=repo)
        assert done.code == 0, done.err
        times, made = spell.log(done.number).decode().splitlines(), []
        if shutil.which("make"):
            times, made = times[:-2], times[-2:]
            assert "up to date" in made[1], made
        assert len(times) == 9 and len(set(times)) == 1, times
        found.append(int(times[0].split(" ")[0]))
        kept = spell.home.runs / str(done.number)
        assert {path.name: path.read_text() for path in kept.iterdir()} == {
            "copy": "x = 1\n", "same": "y = 2\n", "other": "z = 3\n", "third": "y = 2\n"
        }, "what has the time and the size of the code, and another content, is an output"  # fmt: skip
    assert found[0] != found[1], "also for tools that know no parts of seconds, as Python's byte code"
    assert all(315_532_800 < second < time.time() - DAY_S for second in found), "zip and make can take them"
    for tree in ("0" * 64, "f" * 64):
        assert 10**18 <= time_of(tree) < 1.6 * 10**18
