"""`spell rerun`: the same code, packages, image, mounts and variables once more, with what is given instead."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Spell, git
from wheels import make_broken_wheel, make_index, make_wheel

from orchestrator.content.files import remove_tree
from orchestrator.errors import Conflict, InvalidConfig, NotFound
from orchestrator.records.runs import RunRecord
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import RequirementFile

CONFIG = """
[machine_types.cpu]
cpus = 0.1

[machine_types.other]
cpus = 0.2
"""


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    return make_shared("rerun", config=CONFIG)


@pytest.fixture
def spell(shared: Spell) -> Iterator[Spell]:
    """A home that the tests of this module share; each leaves it without active runs."""
    yield shared
    shared.clear()


def again(spell: Spell, run: RunRecord, **changes: object) -> RunRecord:
    """The run cast again, when it has ended."""
    return spell.ended(spell.client.runs.rerun(str(run.number), changes).number)


def warned(spell: Spell, run: RunRecord, **changes: object) -> list[str]:
    cast = spell.client.runs.rerun(str(run.number), changes)
    spell.ended(cast.number)
    return cast.warnings


# -- what stays -----------------------------------------------------------------------------------------------------


def test_a_rerun_sees_what_the_run_saw(make_spell: Callable[..., Spell], repo: Path) -> None:
    """The code of then, not of now; its directory, mounts, variables and parameters; and who asks need not be there."""
    (repo / "sub").mkdir()
    (repo / "sub/show.py").write_text("import os; print('then', open('in').read().strip(), os.environ['SECRET'])\n")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "Show")
    spell = make_spell(cwd=repo / "sub")
    source = spell.run("echo data > data.txt", name="source").number
    mounted = ("-m", "runs/source/data.txt:in", "-e", "SECRET=hidden", "--param", "f=show.py", "--label", "l")
    first = spell("run", *mounted, "python :f:", "--retries", "2", "--timeout", "5")
    assert spell.log(first.number) == b"then data hidden\n"
    (repo / "sub/show.py").write_text("print('now')\n")
    spell.run("echo newer > data.txt", name="source")
    done = spell("rerun", str(first.number), cwd=repo.parent)
    assert done.code == 0
    assert "then data hidden\n" in done.out
    old, new = spell.client.runs.get(str(first.number)), spell.client.runs.get(str(done.number))
    assert new.rerun_of == first.number
    assert new.mounts == old.mounts == [{"resource": f"runs/{source}/data.txt", "path": "in"}]
    assert new.spec | {"executor": ""} == old.spec, "as it was asked"
    assert new.environment == old.environment
    assert "hidden" not in spell("info", str(done.number), "--json").out
    assert f"Rerun Of          {first.number}\n" in spell("info", str(done.number)).out


def test_a_run_that_was_killed_or_archived_can_be_cast_again(spell: Spell) -> None:
    number = spell.cast('[ -n "$GO" ] || sleep 1000; echo went')
    spell.reaches(number, "running")
    spell.client.runs.kill(str(number))
    killed = spell.ended(number)
    assert again(spell, killed, env={"GO": "1"}).state == "complete"
    with contextlib.closing(sqlite3.connect(spell.home.database)) as store:
        store.execute("UPDATE runs SET archived = 1 WHERE number = ?", (number,))
        store.commit()
    assert again(spell, killed, env={"GO": "1"}).state == "complete"


def test_a_rerun_of_a_rerun(spell: Spell) -> None:
    first = spell.run("echo $A$B", env={"A": "1"})
    second = again(spell, first, env={"B": "2"})
    third = again(spell, second)
    assert (second.rerun_of, third.rerun_of) == (first.number, second.number)
    assert spell.log(third.number) == b"12\n"


# -- what is given instead ------------------------------------------------------------------------------------------


def test_options_add_or_replace(spell: Spell) -> None:
    one = spell.run("echo one > f").number
    two = spell.run("echo two > f").number
    first = spell.run(
        "echo :a: :b:; cat in more 2>/dev/null; true",
        mounts=(Mount(f"runs/{one}/f", "in"),),
        params={"a": "1", "b": "2"},
        labels=("old",),
        env={"A": "1", "B": "1"},
        name="first",
        timeout_s=60.0,
    )
    words = ("-m", f"runs/{two}/f:./in", "-m", f"runs/{one}/f:more", "--param", "b=3", "--label", "new", "-e", "B=2")
    more = (
        "-t",
        "other",
        "--name",
        "second",
        "--timeout",
        "2",
        "-d",
        "words",
        "--retries",
        "4",
        "--executor",
        "process",
    )
    done = spell("rerun", "first", *words, *more, "-v")
    assert done.code == 0
    new = spell.client.runs.get("second")
    assert spell.log(new.number) == b"1 3\ntwo\none\n"
    assert [(item["resource"], item["path"]) for item in new.mounts] == [
        (f"runs/{two}/f", "./in"),
        (f"runs/{one}/f", "more"),
    ]
    assert (new.machine_type, new.description, new.labels, new.executor) == (
        "other",
        "words",
        ["new", "old"],
        "process",
    )
    assert (new.spec["timeout_s"], new.spec["retries"], list(new.spec["env"])) == (120.0, 4, ["A", "B"])
    assert spell.client.runs.get(str(first.number)) == first, "the run itself stays as it is"


def test_background_and_json(spell: Spell) -> None:
    first = spell.run("true")
    shown = spell("rerun", str(first.number), "--json").json()
    assert (shown["rerun_of"], shown["state"]) == (first.number, "complete")
    done = spell("rerun", "latest", "-b")
    assert done.out == f"💫 Casting spell #{done.number}…\nView logs with `spell logs -f {done.number}`\n"
    assert spell.ended(done.number).rerun_of == shown["number"]
    assert spell("rerun", str(spell.run("exit 5").number)).code == 5


# -- packages -------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index with one version of a package; `newer` puts another there."""
    return make_index(tmp_path / "index", make_wheel(tmp_path / "built", "thing", "1.0"))


def newer(index: Path) -> None:
    make_index(index.parent, make_wheel(index.parent.parent / "built", "thing", "2.0"))


def from_index(index: Path, *lines: str) -> tuple[RequirementFile, ...]:
    return (RequirementFile("requirements.txt", "\n".join((f"--index-url {index.as_uri()}", *lines)) + "\n"),)


def lose_environment(spell: Spell, run: RunRecord) -> None:
    assert run.environment is not None
    remove_tree(spell.home.environment(run.environment))


SHOW = "python -c 'import thing; print(thing.VERSION)'"


def test_packages_stay_though_there_are_newer_ones(spell: Spell, index: Path) -> None:
    first = spell.run(SHOW, requirements=from_index(index, "thing"))
    assert first.packages == ["thing==1.0"], spell.home.build_log(first.number).read_text()
    newer(index)
    second = again(spell, first)
    assert (second.environment, second.spec["requirements"]) == (first.environment, first.spec["requirements"])
    lose_environment(spell, first)
    third = again(spell, second)
    assert (spell.log(third.number), third.packages) == (b"1.0\n", first.packages), "resolved anew it would be 2.0"
    lock = f"--index-url {index.as_uri()}\nthing==1.0\n"
    assert third.spec["requirements"] == [{"name": f"run-{second.number}.txt", "text": lock}]
    fourth = again(spell, third)
    assert fourth.environment == third.environment, "what was locked stays as it is"


def test_more_packages_are_added_to_those_of_the_run(spell: Spell, index: Path, tmp_path: Path) -> None:
    first = spell.run(SHOW, requirements=from_index(index, "thing"))
    newer(index)
    wheel = make_wheel(tmp_path, "more")
    second = again(spell, first, pip=[str(wheel)])
    assert (second.state, second.packages) == ("complete", ["more==1.0", "thing==1.0"])
    third = again(spell, first, pip=["thing>=2"])
    assert third.packages == ["thing==2.0"], "the same package asked anew replaces that of the run"


def test_local_wheels_and_folders_work_and_are_told(spell: Spell, tmp_path: Path, index: Path) -> None:
    wheel = make_wheel(tmp_path, "mine")
    first = spell.run("mine", pip=(str(wheel),), requirements=from_index(index, "thing"))
    assert warned(spell, first) == [], "its environment is there"
    lose_environment(spell, first)
    newer(index)
    make_wheel(tmp_path, "mine", code="def main(): print('changed')\n")
    cast = spell.client.runs.rerun(str(first.number))
    assert cast.warnings == [f"These packages are used as they are now, and may differ from that run's: {wheel}"]
    second = spell.ended(cast.number)
    assert (spell.log(second.number), second.packages) == (b"changed\n", ["mine==1.0", "thing==1.0"])
    wheel.unlink()
    with pytest.raises(InvalidConfig, match=f"Run {first.number} cannot be cast again: .* does not exist"):
        spell.client.runs.rerun(str(first.number))


def test_a_run_that_never_had_its_packages(spell: Spell, tmp_path: Path) -> None:
    first = spell.run("true", pip=(str(make_broken_wheel(tmp_path)),))
    assert first.state == "build_failed"
    assert warned(spell, first) == [
        f"Run {first.number} ended before its packages were installed, so they are resolved now."
    ]


def test_a_container_is_the_same_image(docker_spell: Spell) -> None:
    first = docker_spell.run("true")
    second = again(docker_spell, first)
    assert (second.state, second.image, second.environment) == ("complete", first.image, first.environment)
    assert second.spec["image"] == first.image, "by its ID: its name may mean another one by now"
    elsewhere = again(docker_spell, first, executor="process")
    assert (elsewhere.state, elsewhere.image) == ("complete", None)
    with contextlib.closing(sqlite3.connect(docker_spell.home.database)) as store:
        store.execute("UPDATE runs SET image = ? WHERE number = ?", ("sha256:" + "0" * 64, first.number))
        store.commit()
    cast = docker_spell.client.runs.rerun(str(first.number))
    assert [words for words in cast.warnings if "is built again" in words]
    assert docker_spell.ended(cast.number).image == first.image


# -- what is wrong --------------------------------------------------------------------------------------------------


def test_there_is_no_such_run(spell: Spell) -> None:
    with pytest.raises(NotFound):
        spell.client.runs.rerun("99999")
    assert "There is no run 'nobody'." in spell("rerun", "nobody").err


def test_a_mount_that_is_gone_is_refused(spell: Spell) -> None:
    source = spell.run("echo data > data.txt").number
    first = spell.run("cat data.txt", mounts=(Mount(f"runs/{source}/data.txt", "data.txt"),))
    folder = spell.home.run_dir(source)
    folder.chmod(0o755)
    shutil.rmtree(folder)
    done = spell("rerun", str(first.number))
    assert done.code == 1
    assert f"Cannot mount resource 'runs/{source}/data.txt': not a valid resource." in done.err
    other = spell.run("echo other > data.txt").number
    assert again(spell, first, mounts=[{"resource": f"runs/{other}/data.txt", "path": "data.txt"}]).state == "complete"


def test_code_that_is_gone_is_refused(make_spell: Callable[..., Spell], repo: Path) -> None:
    spell = make_spell(cwd=repo)
    first = spell.client.runs.get(str(spell("run", "python hello.py").number))
    spell.home.tree(first.spec["code"]["tree"]).unlink()
    with pytest.raises(Conflict, match=f"The code of run {first.number} is not kept any more"):
        spell.client.runs.rerun(str(first.number))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"command": "echo other"}, "A rerun cannot change the command of its run"),
        ({"code": None}, "A rerun cannot change the code of its run"),
        ({"colour": "red"}, "A spec has no field 'colour'"),
        ({"params": {"x": "1"}}, "The command has no ':x:' for parameter 'x'"),
        ({"env": ["A=1"]}, "env"),
        ({"mounts": "runs/1"}, "mounts"),
        ({"mounts": [{"path": 3}]}, "mounts"),
        ({"pip": [7]}, "pip"),
        ({"pip": "six"}, "pip"),
        ({"executor": 5}, "executor"),
        ({"executor": "nowhere"}, "There is no executor 'nowhere'"),
        ({"retries": 1000}, "up to 100 times"),
        ({"labels": {"a": "b"}}, "labels"),
    ],
    ids=str,
)
def test_wrong_changes_are_refused(spell: Spell, changes: dict[str, object], words: str) -> None:
    first = spell.run("true")
    with pytest.raises(InvalidConfig, match=words):
        spell.client.runs.rerun(str(first.number), changes)
    assert spell.client.runs.list(limit=1)[-1].number == first.number, "nothing was cast"


def test_what_is_typed_wrong(spell: Spell) -> None:
    number = str(spell.run("true").number)
    assert spell("rerun").code == 2
    assert spell("rerun", number, "echo other").code == 2, "a rerun has the command of its run"
    assert spell("rerun", number, "--github-url", "x").code == 2
    assert "is not of the form NAME=VALUE" in spell("rerun", number, "-e", "A").err
