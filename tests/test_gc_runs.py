"""`spell gc`: what runs have taken goes when nobody needs it, and nothing that a kept run mounts or needs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell, wait_for

from orchestrator.errors import Conflict
from orchestrator.records.runs import RunRecord
from orchestrator.spec.mounts import Mount

DAY_S = 86400


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home of processes that the tests share."""
    return make_shared(config="[machine_types.small]\ncpus = 0.1\n")


def execute(spell: Spell, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(spell.home.database, timeout=30)) as store, store:
        store.execute(statement, values)


def archive(spell: Spell, *runs: RunRecord, days: float = 30) -> None:
    """Archive runs, as if they had been cast and had ended so many days ago."""
    for run in runs:
        moment = time.time() - days * DAY_S
        execute(
            spell,
            "UPDATE runs SET archived = 1, created_at = ?, ended_at = ? WHERE number = ?",
            moment,
            moment,
            run.number,
        )


def make(spell: Spell, command: str = "head -c 8192 /dev/urandom > data", **fields: object) -> RunRecord:
    run = spell.run(command, machine_type="small", **fields)
    assert run.state == "complete", run.message
    return run


def removed(spell: Spell, *words: str) -> list[str]:
    """What of these kinds goes."""
    found = spell("gc", "--json", *words).json()["removed"]
    return [item["what"] for item in found if item["kind"] not in ("environment", "image")]


def grow_old(spell: Spell) -> None:
    """All code in the store was used long ago."""
    moment = time.time() - 30 * DAY_S
    for path in (*spell.home.trees.glob("*"), *spell.home.blobs.glob("*/*")):
        os.utime(path, (moment, moment))


def test_outputs_of_archived_runs(spell: Spell) -> None:
    kept, young, old = make(spell), make(spell), make(spell)
    archive(spell, young, days=3)
    archive(spell, old)
    outputs = f"outputs of run {old.number}"
    assert removed(spell, "--dry-run") == [outputs]
    assert (spell.home.run_dir(old.number) / "data").exists()
    told = spell("gc")
    assert outputs in told.out and told.out.endswith("Freed 8.0K.\n")
    assert not spell.home.run_dir(old.number).exists() and not list(spell.home.removed.iterdir())
    assert removed(spell) == []
    for number in (kept.number, young.number):
        assert (spell.home.run_dir(number) / "data").stat().st_size == 8192
    record = spell.client.runs.get(str(old.number))
    assert record.outputs_removed_at and record.outputs_count == 1
    words = f"The outputs of run {old.number} were removed by spell gc."
    for verb in (["ls", f"runs/{old.number}"], ["cat", f"runs/{old.number}/data"]):
        told = spell(*verb)
        assert told.code == 1 and words in told.err and f"spell rerun {old.number}" in told.err, told
    with pytest.raises(Conflict, match="is archived"):
        spell.cast("true", mounts=(Mount(f"runs/{old.number}/data", "data"),))
    assert spell("unarchive", str(old.number)).code == 0
    with pytest.raises(Conflict, match="were removed by spell gc"):
        spell.cast("true", mounts=(Mount(f"runs/{old.number}/data", "data"),))
    assert "1 file, 8.0K; removed by spell gc" in spell("info", str(old.number)).out
    assert removed(spell, "--older-than", "2") == [f"outputs of run {young.number}"]


def test_what_a_kept_run_mounted_stays(spell: Spell) -> None:
    source = make(spell)
    user = make(spell, "cat data | wc -c > size", mounts=(Mount(f"runs/{source.number}/data", "data"),))
    archive(spell, source)
    assert removed(spell) == []
    archive(spell, user)
    both = {f"outputs of run {source.number}", f"outputs of run {user.number}"}
    assert set(removed(spell, "--dry-run")) == both
    assert spell("unarchive", str(source.number)).code == 0
    active = spell.cast(
        "echo up; sleep 1000", machine_type="small", mounts=(Mount(f"runs/{source.number}/data", "data"),)
    )
    archive(spell, source)  # which the verb refuses while a run needs it
    assert removed(spell, "--older-than", "0") == [f"outputs of run {user.number}"]
    spell.client.runs.kill(str(active))
    spell.ended(active)


def test_what_a_link_or_a_step_needs_stays(spell: Spell) -> None:
    linked, needed = make(spell), make(spell)
    archive(spell, linked, needed)
    execute(spell, "INSERT INTO links VALUES ('best', ?, ?, 0)", f"runs/{linked.number}/data", linked.number)
    execute(spell, "INSERT INTO workflows (id, name, state, reuse, created_at) VALUES (7, 'w', 'complete', 0, 0)")
    spec = json.dumps({"mounts": [{"resource": f"runs/{needed.number}/data", "path": "data"}]})
    execute(
        spell,
        "INSERT INTO steps (workflow, name, position, spec, needs, state, reused, message) "
        "VALUES (7, 's', 0, ?, '[]', 'waiting', 0, '')",
        spec,
    )
    assert removed(spell) == []
    execute(spell, "DELETE FROM links")
    assert removed(spell) == [f"outputs of run {linked.number}"]
    execute(spell, "UPDATE workflows SET ended_at = 1")
    assert removed(spell) == [f"outputs of run {needed.number}"]


def test_by_size_the_least_recently_used_go_first(spell: Spell) -> None:
    oldest, middle, newest = make(spell), make(spell), make(spell)
    for run, days in ((oldest, 3), (middle, 2), (newest, 1)):
        archive(spell, run, days=days)
    assert removed(spell, "--keep-size", "100K") == []
    assert removed(spell, "--keep-size", "9K") == [f"outputs of run {run.number}" for run in (middle, oldest)]
    assert removed(spell, "--keep-size", "0") == [f"outputs of run {newest.number}"]
    for wrong in ("much", "-1", "1X", "1e9", ""):
        assert spell("gc", "--keep-size", wrong).code == 2, wrong


def test_bytes_that_a_kept_run_shares_are_not_given_back(spell: Spell) -> None:
    kept, gone = (make(spell, "yes the same | head -c 1M > data") for _ in range(2))
    data = spell.home.run_dir(kept.number) / "data"
    wait_for(lambda: data.stat().st_nlink == 2, "they share their bytes")
    archive(spell, gone)
    found = [item for item in spell("gc", "--json").json()["removed"] if item["kind"] == "outputs"]
    assert [(item["what"], item["size_bytes"]) for item in found] == [(f"outputs of run {gone.number}", 0)]
    archive(spell, kept)
    found = [item for item in spell("gc", "--json").json()["removed"] if item["kind"] == "outputs"]
    assert [(item["what"], item["size_bytes"] >= 1 << 20) for item in found] == [
        (f"outputs of run {kept.number}", True)
    ]


def test_outputs_that_were_removed_by_hand_are_not_counted(spell: Spell) -> None:
    run = make(spell, "head -c 1M /dev/urandom > data")
    shutil.rmtree(spell.home.run_dir(run.number))
    archive(spell, run)
    assert removed(spell) == []
    with contextlib.closing(sqlite3.connect(spell.home.database, timeout=30)) as store:
        query = "SELECT outputs_removed_at FROM runs WHERE number = ?"
        assert store.execute(query, (run.number,)).fetchone()[0]


def test_snapshots(spell: Spell, repo: Path) -> None:
    number = spell("run", "-b", "-t", "small", "cat hello.py > out", cwd=repo).number
    kept = spell.ended(number)
    (repo / "hello.py").write_text("print('another')\n")
    other = spell.ended(spell("run", "-b", "-t", "small", "true", cwd=repo).number)
    archive(spell, other)
    assert removed(spell, "--older-than", "0") == []  # a cast may be under way that needs it
    grow_old(spell)
    (told,) = removed(spell)
    assert told == "1 snapshot of code, 2 files"  # what had changed, and its difference
    assert removed(spell) == []
    again = spell("rerun", str(other.number))
    assert again.code == 1 and "is not kept any more" in again.err
    assert spell("rerun", str(kept.number)).code == 0
    assert spell.ended(spell("run", "-b", "-t", "small", "cat hello.py > out", cwd=repo).number).state == "complete"
    assert spell("cat", "runs/latest/out").out == "print('another')\n"


def test_a_cast_under_way_keeps_its_code(spell: Spell, repo: Path) -> None:
    """What a server says that it has is not sent, and so must stay until the run is cast."""
    spell.ended(spell("run", "-b", "-t", "small", "true", cwd=repo).number)
    archive(spell, spell.client.runs.get("latest"))
    grow_old(spell)
    tree = next(iter(spell.home.trees.glob("*.json")))
    before = len(list(spell.home.blobs.glob("*/*")))
    manifest = tree.read_bytes()
    assert spell.client.transport.call("POST", "/trees", content=manifest) == []
    # by now all its blobs count as used
    removed(spell)
    assert len(list(spell.home.blobs.glob("*/*"))) == before


def test_killed_in_the_middle(make_spell: Callable[..., Spell]) -> None:
    """The store says that they are removed, and they lie there still: the next server goes on."""
    spell = make_spell()
    first, second = spell.run("echo 1 > data"), spell.run("echo 2 > data")
    execute(spell, "UPDATE runs SET archived = 1, outputs_removed_at = 1 WHERE number = 1")
    half = spell.home.removed / "2-half"
    half.mkdir()
    spell.home.run_dir(second.number).joinpath("data").chmod(0o644)
    (half / "data").write_text("half")
    half.chmod(0o555)
    spell.kill_server()
    assert spell("ps").code == 0
    assert not spell.home.run_dir(first.number).exists() and not list(spell.home.removed.iterdir())
    assert spell("cat", f"runs/{second.number}/data").out == "2\n"


def test_outputs_as_deep_as_a_run_likes(spell: Spell) -> None:
    deep = "python3 -c \"import os; [(os.mkdir('d'), os.chdir('d')) for _ in range(1200)]; open('f', 'w').write('x')\""
    run = make(spell, deep)
    archive(spell, run)
    assert removed(spell) == [f"outputs of run {run.number}"]
    assert not spell.home.run_dir(run.number).exists()
