"""`--reuse`: an identical run that is complete is taken, and nothing else ever is."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BIN, Spell, git, wait_for
from engines import engine_api
from wheels import make_wheel

from orchestrator.content.manifest import FILE, Entry
from orchestrator.content.manifest import make as make_manifest
from orchestrator.errors import InvalidConfig, SnapshotMissing
from orchestrator.records.casts import CastRecord
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import Code, RunSpec
from orchestrator.store import NewRun, Store
from orchestrator.store.database import Database

CONFIG = """
[machine_types.cpu]
cpus = 0.1

[machine_types.other]
cpus = 0.2
"""


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    return make_shared("reuse", config=CONFIG)


@pytest.fixture
def spell(shared: Spell) -> Iterator[Spell]:
    """A home that the tests of this module share; each leaves it without active runs."""
    yield shared
    shared.clear()


def reusing(spell: Spell, command: str, **fields: Any) -> CastRecord:
    return spell.client.runs.cast(RunSpec(command=command, **fields), reuse=True)


def change(spell: Spell, statement: str, *values: object) -> None:
    """Change the store behind the server's back."""
    with contextlib.closing(sqlite3.connect(spell.home.database)) as store:
        assert store.execute(statement, values).rowcount
        store.commit()


# -- what is taken --------------------------------------------------------------------------------------------------


def test_an_identical_complete_run_is_taken(spell: Spell, token: str) -> None:
    fields: dict[str, Any] = {"params": {"x": token}, "env": {"B": "2", "A": "1"}, "ignore": ("*.tmp",)}
    first = spell.run("echo :x: > out.txt", **fields)
    again = reusing(spell, "echo :x: > out.txt", **{**fields, "env": {"A": "1", "B": "2"}})
    assert (again.number, again.reused, again.warnings) == (first.number, True, [])
    assert spell.client.runs.list(limit=1)[-1].number == first.number, "nothing was cast"


def test_nobody_reads_the_record_of_a_run_that_is_taken(spell: Spell, token: str) -> None:
    assert spell("run", f"echo {token}").code == 0
    reader, writer = os.pipe()
    os.close(reader)
    words = [str(BIN / "spell"), "run", "--reuse", "--json", f"echo {token}"]
    done = subprocess.run(words, env=spell.env, cwd=spell.cwd, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 0
    assert b"still running" not in done.stderr


def test_the_newest_is_taken_and_without_reuse_none(spell: Spell, token: str) -> None:
    numbers = [spell.run(f"echo {token}").number for _ in range(2)]
    assert numbers[0] != numbers[1]
    assert reusing(spell, f"echo {token}").number == numbers[1]


def test_a_filled_command_is_what_counts(spell: Spell, token: str) -> None:
    first = spell.run(f"echo {token}")
    assert reusing(spell, "echo :x:", params={"x": token}).number == first.number


@pytest.mark.parametrize(
    "fields",
    [
        {"command": "echo other"},
        {"env": {"A": "2"}},
        {"env": {}},
        {"pip": ("six",)},
        {"ignore": ("*.tmp",)},
    ],
    ids=str,
)
def test_one_that_differs_is_not(spell: Spell, fields: dict[str, Any]) -> None:
    first = spell.run("echo one", env={"A": "1"})
    found = reusing(spell, **{"command": "echo one", "env": {"A": "1"}, **fields})
    assert not found.reused
    assert found.number > first.number


@pytest.mark.parametrize("command", ["exit 1", "kill -9 $$"])
def test_one_that_failed_is_not(spell: Spell, command: str) -> None:
    spell.run(command)
    assert not reusing(spell, command).reused


def test_one_that_has_not_ended_is_not(spell: Spell, token: str) -> None:
    spell.cast(f"sleep {token}")
    assert not reusing(spell, f"sleep {token}").reused


def test_an_archived_one_is_not(spell: Spell, token: str) -> None:
    first = spell.run(f"echo {token}").number
    change(spell, "UPDATE runs SET archived = 1 WHERE number = ?", first)
    assert not reusing(spell, f"echo {token}").reused


def test_one_whose_outputs_are_gone_is_not(spell: Spell, token: str) -> None:
    first = spell.run(f"echo {token} > out.txt").number
    folder = spell.home.run_dir(first)
    folder.chmod(0o755)
    folder.rename(folder.with_name("away"))
    assert not reusing(spell, f"echo {token} > out.txt").reused


def test_what_does_not_change_a_run_does_not_count_but_is_told(spell: Spell, token: str) -> None:
    first = spell.run(f"echo {token}", labels=("mine",)).number
    found = reusing(spell, f"echo {token}", name="named", labels=("mine", "new"), timeout_s=60.0, retries=3)
    assert (found.number, found.reused) == (first, True)
    assert found.warnings == [f"Run {first} stays as it is, without the name 'named', the label 'new'."]


# -- mounts ---------------------------------------------------------------------------------------------------------


def sources(spell: Spell, *commands: str) -> list[int]:
    return [spell.run(command).number for command in commands]


def test_mounts_of_the_same_content_are_the_same(spell: Spell, token: str) -> None:
    make = f"mkdir -p d/e; echo {token} > d/e/a; echo {token} > d/b"
    one, same, other = sources(spell, make, f"{make}; echo more > x", f"{make}; echo X > d/b")
    first = spell.run("cat in/b", mounts=(Mount(f"runs/{one}/d", "in"),)).number
    assert reusing(spell, "cat in/b", mounts=(Mount(f"runs/{one}/d", "./in/"),)).number == first
    assert reusing(spell, "cat in/b", mounts=(Mount(f"runs/{same}/d", "in"),)).number == first
    assert not reusing(spell, "cat in/b", mounts=(Mount(f"runs/{other}/d", "in"),)).reused
    assert not reusing(spell, "cat in/b", mounts=(Mount(f"runs/{same}", "in"),)).reused
    assert not reusing(spell, "cat in/b", mounts=(Mount(f"runs/{one}/d", "elsewhere"),)).reused
    assert not reusing(spell, "cat in/b").reused


def test_what_lies_behind_a_link_is_not_taken_for_the_same(spell: Spell) -> None:
    """The manifest has the link's text; what it leads to may be another content."""
    make = "mkdir a b; ln -s ../a/f b/file; ln -s a folder; echo"
    one, other = sources(spell, f"{make} 1 > a/f", f"{make} 2 > a/f")
    for path in ("b/file", "folder", "folder/f", "b"):
        command = "cat in" if path in ("b/file", "folder/f") else f"cat in/f*; echo {path}"
        first = spell.run(command, mounts=(Mount(f"runs/{one}/{path}", "in"),)).number
        assert not reusing(spell, command, mounts=(Mount(f"runs/{other}/{path}", "in"),)).reused, path
        assert reusing(spell, command, mounts=(Mount(f"runs/{one}/{path}", "in"),)).number == first, path
    command = "cat in/b/file"
    first = spell.run(command, mounts=(Mount(f"runs/{one}", "in"),)).number
    assert not reusing(spell, command, mounts=(Mount(f"runs/{other}", "in"),)).reused


def test_a_neighbour_does_not_count(spell: Spell) -> None:
    make = "mkdir model; echo 1 > model/x; echo"
    one, same = sources(spell, f"{make} 1 > model0", f"{make} 2 > model0")
    first = spell.run("cat model/x", mounts=(Mount(f"runs/{one}/model", "model"),)).number
    assert reusing(spell, "cat model/x", mounts=(Mount(f"runs/{same}/model", "model"),)).number == first


def test_files_of_the_same_size_are_told_apart_before_they_are_hashed(spell: Spell) -> None:
    one, same, other = sources(spell, "printf aa > f", "printf aa > f; true", "printf bb > f")
    first = spell.run("cat f", mounts=(Mount(f"runs/{one}/f", "f"),)).number
    assert not reusing(spell, "cat f", mounts=(Mount(f"runs/{other}/f", "f"),)).reused
    wait_for(lambda: all(item.sha256 for item in spell.client.runs.artifacts(str(same))), "the background's hashes")
    change(spell, "UPDATE artifacts SET sha256 = NULL WHERE run IN (?, ?)", one, same)
    assert reusing(spell, "cat f", mounts=(Mount(f"runs/{same}/f", "f"),)).number == first
    assert all(item.sha256 for item in spell.client.runs.artifacts(str(same))), "what was computed is kept"


def test_an_upload_is_known_by_its_content(spell: Spell) -> None:
    for name in ("one", "same", "unknown"):
        (spell.home.uploads / name).mkdir()
        (spell.home.uploads / name / "f").write_text("data")
    for name in ("one", "same"):
        change(spell, "INSERT INTO uploads VALUES (?, ?, 1, 4, 0)", name, "a" * 64)
    first = spell.run("cat f", mounts=(Mount("uploads/one/f", "f"),)).number
    assert reusing(spell, "cat f", mounts=(Mount("uploads/same/f", "f"),)).number == first
    change(spell, "UPDATE uploads SET tree = ? WHERE name = 'one'", "b" * 64)
    assert not reusing(spell, "cat f", mounts=(Mount("uploads/one/f", "f"),)).reused, "it was sent again, and differs"
    unknown = Mount("uploads/unknown/f", "f")
    spell.run("cat f", mounts=(unknown,))
    assert not reusing(spell, "cat f", mounts=(unknown,)).reused, "nobody knows what it held"


# -- code and packages ----------------------------------------------------------------------------------------------


def test_code_need_not_be_sent_for_what_is_taken(make_spell: Callable[..., Spell], repo: Path) -> None:
    spell = make_spell(cwd=repo)
    first = spell("run", "python hello.py").number
    spec = spell.client.runs.get(str(first)).spec
    code = Code(**spec["code"])
    spell.home.tree(code.tree).rename(repo / "away")
    found = spell.client.runs.cast(RunSpec(command="python hello.py", code=code), reuse=True)
    assert (found.number, found.reused) == (first, True)
    with pytest.raises(SnapshotMissing):
        spell.client.runs.cast(RunSpec(command="python other.py", code=code), reuse=True)
    (repo / "hello.py").write_text("print('changed')\n")
    assert spell("run", "--reuse", "python hello.py").number != first
    git(repo, "commit", "-qam", "Changed")
    done = spell("run", "--reuse", "python hello.py")
    assert "is identical and complete" in done.out, "what counts is the content, not the commit"


def test_a_snapshot_that_was_never_there_is_asked_for(spell: Spell) -> None:
    tree = make_manifest([Entry("f", FILE, "0" * 64, 1)]).tree
    with pytest.raises(SnapshotMissing):
        reusing(spell, "true", code=Code(tree))


def test_a_local_wheel_is_known_by_its_content(spell: Spell, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "mine")
    first = spell.run("mine", pip=(str(wheel),)).number
    assert reusing(spell, "mine", pip=(str(wheel),)).number == first
    wheel = make_wheel(tmp_path, "mine", code="def main(): print('changed')\n")
    assert not reusing(spell, "mine", pip=(str(wheel),)).reused
    with pytest.raises(InvalidConfig, match="does not exist"):
        reusing(spell, "mine", pip=(f"{tmp_path}/gone.whl",))


def test_an_image_is_a_part_of_it(docker_spell: Spell) -> None:
    """The name of the image counts, as do packages of its distribution and its network."""
    first = docker_spell.run("true").number
    assert reusing(docker_spell, "true").number == first
    image = engine_api().inspect_image("spell-test-base:bookworm")["Id"]
    for fields in ({"image": image}, {"network": "none"}, {"executor": "process"}):
        assert not reusing(docker_spell, "true", **fields).reused, fields


# -- the command line -----------------------------------------------------------------------------------------------


def test_it_is_said(spell: Spell, token: str) -> None:
    first = spell("run", "--reuse", f"echo {token}")
    again = spell("run", "--reuse", f"echo {token}")
    assert (first.code, again.code) == (0, 0)
    assert again.out == (
        f"💫 Run {first.number} is identical and complete, so no run was cast\n"
        f"View its logs with `spell logs {first.number}`\n"
    )
    assert spell("run", "--reuse", "--json", f"echo {token}").json()["number"] == first.number
    assert spell("run", "--reuse", "-b", f"echo {token}").out == again.out
    assert spell("run", f"echo {token}").number > first.number


def test_a_look_for_it_is_bounded(tmp_path: Path) -> None:
    """Its index holds what can be taken, and nothing else."""
    store = Store(Database(tmp_path / "spell.db"))
    for _ in range(3):
        store.add(NewRun(RunSpec(command="true"), "process", 1, None, 0, fingerprint="f"))
    with contextlib.closing(sqlite3.connect(tmp_path / "spell.db")) as database:
        database.execute("UPDATE runs SET state = 'complete' WHERE number < 3")
        database.commit()
        plan = database.execute(
            "EXPLAIN QUERY PLAN SELECT number, outputs_count FROM runs "
            "WHERE fingerprint = 'f' AND state = 'complete' AND NOT archived ORDER BY number DESC LIMIT 5"
        ).fetchall()
    assert store.reuse.complete("f", 5) == [(2, 0), (1, 0)]
    assert store.reuse.complete("f", 1) == [(2, 0)]
    assert [row[3] for row in plan] == ["SEARCH runs USING INDEX runs_fingerprint (fingerprint=?)"]
