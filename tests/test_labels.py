"""Keeping order: lists of runs, search, labels, projects, links and the archive."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BIN, Spell, wait_for
from sqlalchemy.dialects import sqlite
from terminal import Terminal

from orchestrator.cli.input.durations import since
from orchestrator.errors import Conflict, InvalidConfig, NotFound, SpellError, UsageError
from orchestrator.records.metrics import MetricRecord
from orchestrator.spec.filters import Filter, parse_sort
from orchestrator.spec.mounts import Mount, parse_mount
from orchestrator.spec.names import check_alias
from orchestrator.spec.run import RunSpec
from orchestrator.store import NewRun, Store, listing
from orchestrator.store.database import Database


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with 40 runs, which no test changes."""
    database = Database(tmp_path_factory.mktemp("store") / "spell.db")
    store = Store(database)
    filled(store)
    yield store
    database.close()


def add(store: Store, command: str = "true", **fields: Any) -> int:
    return store.add(NewRun(RunSpec(command=command, **fields), "process", 1, None, 0))


def end(store: Store, number: int, **columns: Any) -> None:
    claimed = store.claim(number, [])
    assert claimed is not None
    store.end(number, claimed.fence, "stop_requested", **columns)


def numbers(store: Store, sort: str = "", *, limit: int = 50, skip: int = 0, **filters: Any) -> list[int]:
    return [run.number for run in store.summaries(Filter(**filters), parse_sort(sort), limit=limit, skip=skip)]


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    """A home for all tests that name their runs by number."""
    return make_shared("labels")


# -- lists ------------------------------------------------------------------------------------------------------------


def filled(store: Store, count: int = 40) -> None:
    store.projects.create("Jokes", "", ())
    for index in range(count):
        add(
            store,
            f"python train.py --lr {index}",
            labels=("all", f"third-{index % 3}"),
            machine_type="gpu" if index % 4 == 0 else "cpu",
            project="jokes" if index % 5 == 0 else "",
            description="Fußball" if index == 7 else "",
        )
    for number in range(1, 21):
        end(store, number, duration_s=float(21 - number))
    for number in range(1, 11):
        found = [MetricRecord(number, "loss", step, value, 0.0) for step, value in enumerate((99.0, number / 10))]
        store.add_metrics(number, found, 0, 1)
        store.add_metrics(number, [MetricRecord(number, "acc", 0, 1 - number / 10, 0.0)], 1, 2)


def test_f44_lists_are_read_from_an_index_in_their_order(store: Store) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("", {}),
        ("", {"archived": True}),
        ("", {"labels": ("all",)}),
        ("", {"labels": ("all", "third-1"), "states": ("stopped", "failed")}),
        ("", {"states": ("stopped",)}),
        ("", {"machine_types": ("gpu",)}),
        ("", {"project": "jokes"}),
        ("", {"name": "jokes", "states": ("stopped",)}),
        ("", {"since": 1.0}),
        ("", {"text": ("train",)}),
        ("", {"text": ("train", "lr"), "labels": ("all",)}),
        ("duration", {}),
        ("-metric:loss", {}),
        ("metric:loss", {"states": ("stopped",)}),
    ]
    for sort, filters in asked:
        for query in listing.queries(Filter(**filters), parse_sort(sort), limit=50):
            with store._db.read() as connection:
                compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
                plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]
            assert not [line for line in plan if "TEMP B-TREE" in line], (sort, filters, plan)
            scanned = [line for line in plan if line.startswith("SCAN") and "INDEX" not in line]
            assert all("projects" in line or "VIRTUAL TABLE" in line for line in scanned), (sort, filters, plan)


def test_f44_pages_are_bounded(store: Store) -> None:
    assert numbers(store, limit=7) == list(range(34, 41))
    assert numbers(store, labels=("all", "third-0", "third-1"), limit=3) == [38, 39, 40]
    assert numbers(store, "duration", limit=3) == [3, 2, 1]
    assert numbers(store, "duration", limit=3, skip=3) == [6, 5, 4]
    assert numbers(store, "-duration", limit=3) == [18, 19, 20]
    assert numbers(store, "number", limit=2) == [39, 40]
    assert numbers(store, "-number", limit=2) == [2, 1]
    seen: list[int] = []
    while page := numbers(store, "-metric:loss", limit=4, skip=len(seen)):
        seen = page + seen
    assert seen == list(range(10, 0, -1))
    with pytest.raises(UsageError):
        numbers(store, labels=tuple(map(str, range(300))))


def test_filters_hold_together(store: Store) -> None:
    assert numbers(store, project="JOKES") == [1, 6, 11, 16, 21, 26, 31, 36]
    assert numbers(store, project="jokes", machine_types=("GPU",), states=("stopped",)) == [1]
    assert numbers(store, machine_types=("gpu",), labels=("third-0",)) == [1, 13, 25, 37]
    assert numbers(store, metrics=("loss < 0.5",)) == [1, 2, 3, 4]
    assert numbers(store, metrics=("loss < 0.5 && acc<=0.8",)) == [2, 3, 4]
    assert numbers(store, "metric:acc", metrics=("loss<0.5", "acc<=0.8"), limit=2) == [3, 2]
    assert numbers(store, "metric:loss", labels=("third-1",), text=("train",)) == [2, 5, 8]
    assert numbers(store, project="absent") == numbers(store, name="absent") == []
    first = store.summary(1).created_at
    assert numbers(store, since=first) == list(range(1, 41))
    assert numbers(store, since=store.summary(40).created_at + 1) == []
    assert numbers(store, since=store.summary(30).created_at, states=("stopped",)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (("python TRAIN",), 40),
        (("--lr 12",), 1),
        (("lr 1",), 11),
        (("12", "train"), 1),
        (("7",), 4),
        (("fußb",), 1),
        (('"',), 0),
        (('"train"',), 0),
        (("train*",), 0),
        (("train AND lr",), 0),
        (("command:train",), 0),
        (("%", "train"), 0),
        (("tr_in",), 0),
        (("t_",), 0),
        (("NOT",), 0),
        (("train\0x",), 0),
        (("\0",), 0),
        (("'; DROP TABLE runs; --",), 0),
        (("(", ")"), 0),
    ],
)
def test_texts_mean_themselves(store: Store, text: tuple[str, ...], found: int) -> None:
    assert len(numbers(store, text=text)) == found


@pytest.mark.parametrize(
    "filters", [{"text": ("",)}, {"text": ("x" * 1001,)}, {"metrics": ("loss",)}, {"metrics": ("loss<1:5",)}]
)
def test_what_cannot_be_asked(filters: dict[str, Any]) -> None:
    with pytest.raises((UsageError, InvalidConfig)):
        Filter(**filters)


@pytest.mark.parametrize("text", ["loss", "metric:", "-", "--number", "created"])
def test_unknown_orders(text: str) -> None:
    if text == "-":
        assert parse_sort(text).is_descending
        return
    with pytest.raises(UsageError):
        parse_sort(text)


def test_times() -> None:
    assert since("1970-01-02T00:00:00+00:00") == 86400
    assert since("1h") > since("2h") > since("1d") > since("1w") > since("2020-01-01")
    for text in ("", "2", "h", "-2h", "yesterday", "2026-13-01", "1e9d", "nan"):
        with pytest.raises(UsageError):
            since(text)


def test_ps_and_search_show_what_is_asked(shared: Spell) -> None:
    code = "from orchestrator.runtime import send_metric; send_metric('loss', {})"
    found = [shared.run(f'python -c "{code.format(value)}"', labels=("shown",)).number for value in (0.7, 0.2, 0.9)]
    for number in found:
        shared.client.metrics.list(str(number))
    done = shared("ps", "-l", "shown", "--sort", "-metric:loss")
    assert re.findall(r"^(\d+) .* (0\.\d)$", done.out, re.MULTILINE) == [
        (str(found[2]), "0.9"),
        (str(found[0]), "0.7"),
        (str(found[1]), "0.2"),
    ]
    assert done.out.splitlines()[0].split()[-1] == "loss"
    done = shared("ps", "-l", "shown", "--metric", "loss<0.5", "--since", "1h", "-t", "cpu", "--json")
    assert [run["number"] for run in done.json()] == [found[1]]
    done = shared("search", "send_metric", "'loss', 0.9", "--json")
    assert [run["number"] for run in done.json()] == [found[2]]
    assert "No runs match." in shared("search", "no such thing").out
    assert shared("search", "").code == shared("search").code == 2
    assert shared("ps", "--sort", "loss").code == shared("ps", "--since", "soon").code == 2
    assert shared("ps", "--metric", "loss").code == 3


# -- labels -----------------------------------------------------------------------------------------------------------


def test_labels_of_several_runs(shared: Spell) -> None:
    one, two = shared.run("true").number, shared.run("true").number
    done = shared("label", str(one), str(two), str(one), "best one", "--label", "v2")
    assert done.out.splitlines() == [
        f"Successfully added labels best one, v2 to run {one}.",
        f"Successfully added labels best one, v2 to run {two}.",
    ]
    assert shared.client.runs.get(str(two)).labels == ["best one", "v2"]
    assert shared("label", str(one), "best one").code == 0, "what it has already is no error"
    done = shared("label", "--remove", str(one), "99999", str(two), "v2", "-q")
    assert (done.code, done.out) == (1, "") and "99999" in done.err
    assert shared.client.runs.get(str(one)).labels == ["best one"]
    assert shared("label", str(one), "v2", "--remove").code == 1
    assert shared("label", str(one), "no;pe").code == 3
    done = shared("label", str(one))
    assert done.code == 2 and "A run or a label is missing." in done.err
    assert shared("label", str(one), "--label", "late").out == f"Successfully added label late to run {one}.\n"
    shared("label", "--remove", str(one), "late")
    assert shared("label", str(one), "x", "--json").json()[0]["labels"] == ["best one", "x"]


# -- projects ---------------------------------------------------------------------------------------------------------


def test_projects_from_beginning_to_end(shared: Spell) -> None:
    one, two = str(shared.run("true").number), str(shared.run("true").number)
    assert shared("project", "create", "Puns", "-d", "a b", "-r", one).out == "Created project Puns.\n"
    done = shared("project", "create", "pUNS")
    assert done.code == 1 and "Project 'Puns' already exists." in done.err
    assert shared("project", "create", "a/b").code == 3
    assert shared("project", "create").code == 2
    assert "Puns" in shared("project", "list").out
    assert shared("project", "add-runs", "puns", two).code == 0
    assert [run["number"] for run in shared("ps", "-p", "PUNS", "--json").json()] == [int(one), int(two)]
    assert "Puns" in shared("ps", "-v").out and "Project" in shared("info", one).out
    shared("project", "create", "other")
    assert shared("project", "add-runs", "other", two, one).code == 0, "in one at most"
    assert shared("project", "info", "puns", "--json").json()["runs"] == 0
    done = shared("project", "remove-runs", "puns", two)
    assert done.code == 1 and f"Run {two} is not in project 'Puns'." in done.err
    assert shared("project", "remove-runs", "OTHER", two).code == 0
    assert shared("project", "edit", "puns", "-n", "PUNS", "-d", "").code == 0
    assert shared("project", "edit", "puns", "-n", "other").code == 1
    assert shared("project", "edit", "puns").code == 2
    assert shared("project", "archive", "puns").code == 0
    assert shared("project", "archive", "puns").code == 1
    assert "PUNS" not in shared("project", "list").out and "PUNS" in shared("project", "list", "--archived").out
    done = shared("run", "-p", "puns", "true")
    assert done.code == 1 and "is archived" in done.err
    assert shared("project", "unarchive", "puns").code == 0
    assert shared("project", "info", "absent").code == 1


def test_a_run_is_cast_into_its_project(shared: Spell) -> None:
    done = shared("run", "-p", "typo", "true")
    assert done.code == 1 and "A project named 'typo' could not be found." in done.err
    assert "spell project create" in done.err and "Casting" not in done.out
    done = shared("run", "-f", "-p", "forced", "true")
    assert done.code == 0 and "so spell creates it" in done.err
    run = shared.client.runs.get(str(done.number))
    assert (run.project, run.spec["project"]) == ("forced", "forced")
    shared.client.projects.edit("forced", "renamed")
    again = shared("rerun", str(done.number))
    assert shared.client.runs.get(str(again.number)).project == "renamed"
    with pytest.raises(NotFound):
        shared.cast("true", project="typo")


def test_a_person_is_asked_about_an_unknown_project(shared: Spell) -> None:
    for answer, made in (("n", []), ("y", ["asked-y"])):
        words = [str(BIN / "spell"), "run", "-p", f"asked-{answer}", "true"]
        with Terminal(words, shared.cwd, shared.env, 160) as terminal:
            terminal.sees("create a new one?")
            terminal.type(f"{answer}\r")
            assert terminal.ends() == (0 if made else 1)
        names = [item.name for item in shared.client.projects.list()]
        assert [name for name in names if name.startswith("asked-")] == made


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alias", ["", "runs", "uploads", "public", "a b", "a/b", "..", "-x", "a\nb", "a\x1bb", "x" * 64, *'."\\[]:;|=,~']
)
def test_words_that_are_no_aliases(alias: str) -> None:
    with pytest.raises(InvalidConfig):
        check_alias(alias)


def test_an_alias_is_usable_wherever_a_resource_is(shared: Spell, tmp_path: Path) -> None:
    source = shared.run("mkdir -p checkpoint; echo deep > checkpoint/w; echo text > montag.txt").number
    done = shared("link", "montag_text_file", f"runs/{source}/montag.txt")
    assert done.out.startswith(f"Successfully created symlink:\nmontag_text_file → runs/{source}/montag.txt   ")
    assert shared("link", "montagmodel", "runs/latest").code == 0
    assert shared("link", "öl", "montagmodel/checkpoint/").code == 0
    assert shared("link", "öl", "--json").json()["resource"] == f"runs/{source}/checkpoint"
    assert [item["alias"] for item in shared("link", "--json").json()] == ["montag_text_file", "montagmodel", "öl"]
    assert f"montagmodel/ → runs/{source}" in shared("ls").out
    assert shared("ls", "montagmodel").out.endswith(f"---\nmontagmodel → runs/{source}\n")
    assert shared("cat", "montagmodel/checkpoint/w", "montag_text_file").out == "deep\ntext\n"
    assert shared("cp", "montagmodel", str(tmp_path / "copy")).code == 0
    assert (tmp_path / "copy/checkpoint/w").read_text() == "deep\n"
    done = shared(
        "run", "-m", "montag_text_file:in.txt", "-m", "montagmodel/checkpoint:cp", "-m", "öl", "cat in.txt cp/w öl/w"
    )
    assert done.code == 0 and "text\ndeep\ndeep\n" in done.out
    run = shared.client.runs.get(str(done.number))
    assert [item["resource"] for item in run.mounts] == [
        f"runs/{source}/montag.txt",
        f"runs/{source}/checkpoint",
        f"runs/{source}/checkpoint",
    ]
    assert shared.client.runs.get(str(source)).mounted_by == [done.number]
    env = {"_SPELL_COMPLETE": "bash_complete", "COMP_WORDS": "spell unlink mon", "COMP_CWORD": "2"}
    assert "montagmodel" in shared(env=env).out
    done = shared("link", "montagmodel", f"runs/{source}/checkpoint")
    assert done.code == 1 and "--force" in done.err
    assert shared("link", "-f", "montagmodel", f"runs/{source}/checkpoint").code == 0
    assert shared("cat", "montagmodel/w").out == "deep\n"
    done = shared("unlink", "montagmodel", "absent", "öl")
    assert (done.code, done.out) == (1, "Removed link montagmodel.\nRemoved link öl.\n")
    assert shared("ls", "montagmodel").code == 1
    for words in (
        ("link", "x", "runs/99999"),
        ("link", "x", f"runs/{source}/no"),
        ("link", "x", "runs"),
        ("link", "x"),
    ):
        assert shared(*words).code == 1, words
    assert shared("link", "a.b", "runs/1").code == 3
    assert shared("link", "x", "runs/1/../../store").code == 3


def test_f41_of_an_alias_that_leads_nowhere(shared: Spell) -> None:
    source = shared.run("echo x > data.txt").number
    links = shared.client.links
    links.put("gone", f"runs/{source}/data.txt")
    shared.client.archive.add(str(source))
    for words in (("ls", "gone"), ("cat", "gone"), ("run", "-m", "gone", "true"), ("link", "other", "gone")):
        done = shared(*words)
        assert done.code == 1 and f"spell unarchive {source}" in done.err, words
    assert "gone" not in [item.alias for item in links.list()]
    with pytest.raises(Conflict, match="is archived"):
        shared.cast("true", mounts=(parse_mount(f"runs/{source}/data.txt"),))
    shared.client.archive.remove(str(source))
    assert shared("cat", "gone").out == "x\n"
    with pytest.raises(NotFound, match="not a valid resource"):
        shared.cast("true", mounts=(Mount("absent", "absent"),))


# -- the archive ------------------------------------------------------------------------------------------------------


def test_an_archived_run_is_out_of_sight(spell: Spell) -> None:
    first = spell.run("echo needle > f", name="twin").number
    second = spell.run("echo needle > f", name="twin").number
    done = spell("archive", "latest", "latest")
    assert (done.code, done.out) == (0, f"Archived run {second}.\n"), "what is named twice is one run"
    done = spell("archive", str(second))
    assert done.code == 1 and "already archived" in done.err
    assert [run.number for run in spell.client.runs.list()] == [first]
    assert [run["number"] for run in spell("search", "needle", "--json").json()] == [first]
    assert [run["number"] for run in spell("ps", "--archived", "--json").json()] == [second]
    assert spell.client.runs.get("latest").number == spell.client.runs.get("twin").number == first
    assert [item.path for item in spell.client.resources.list("runs")] == [str(first)]
    assert spell("run", "--reuse", "echo needle > f").out.startswith(f"💫 Run {first} is identical")
    assert spell("cat", f"runs/{second}/f").out == "needle\n"
    assert "[Archived]" in spell("info", str(second)).out
    spell("archive", str(first))
    assert spell("info", "latest").code == 1
    assert spell("run", "--reuse", "-b", "echo needle > f").number == second + 1
    assert spell("archive", "--undo", str(first)).code == spell("unarchive", "twin").code - 1 == 0
    assert spell("unarchive", str(second)).code == 0
    assert spell("ps", "--archived", "--json").json() == []


def test_what_cannot_be_archived(spell: Spell) -> None:
    source = spell.run("echo x > data.txt").number
    user = spell.cast("cat data.txt; sleep 1000", mounts=(parse_mount(f"runs/{source}/data.txt"),))
    spell.reaches(user, "running")
    done = spell("archive", str(user), str(source), "99999")
    assert done.code == 1 and done.out == ""
    assert "still running" in done.err and f"mounted by run {user}" in done.err and "99999" in done.err
    spell.client.runs.kill(str(user))
    wait_for(lambda: spell.client.runs.get(str(user)).state == "killed", "the end")
    assert spell("archive", str(source), str(user)).code == 0


def test_everything_shown_on_the_page_works(spell: Spell) -> None:
    """The commands of docs/organising.md on projects, links and the archive, on runs that are there."""
    page = (Path(__file__).parents[1] / "docs" / "organising.md").read_text()
    for _ in range(7):
        spell.run("mkdir checkpoint; touch checkpoint/w montagtext.txt")
    for line in re.findall(
        r"^\$ spell ((?:label|project|link|unlink|archive|unarchive|ps|search) .*?)(?: +#.*)?$", page, re.MULTILINE
    ):
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)]
        done = spell(*words)
        assert done.code == 0, (line, done)


def test_bodies_are_bounded_and_text(spell: Spell) -> None:
    transport = spell.client.transport
    run = spell.run("true").number
    for path, body in (
        ("/projects", {"name": "big", "description": "x" * (2 << 20)}),
        (f"/runs/{run}/labels", {"add": ["x" * (2 << 20)]}),
    ):
        with pytest.raises(SpellError, match="at most 1 MiB"):
            transport.call("POST", path, json=body)
    for body in ({"name": "odd", "description": "\ud800"}, {"name": "odd", "runs": ["\ud800"]}):
        with pytest.raises(SpellError) as caught:
            transport.call("POST", "/projects", content=json.dumps(body))
        assert "internal error" not in caught.value.message
    with pytest.raises(InvalidConfig, match="100 labels"):
        spell.cast("true", labels=tuple(f"l{index}" for index in range(101)))


def test_names_that_differ_beyond_ascii_are_two(spell: Spell) -> None:
    projects = spell.client.projects
    projects.create("Ärger")
    projects.create("ärger")
    with pytest.raises(Conflict):
        projects.edit("Ärger", "ärger")
    assert projects.edit("ärger", "äRGER").name == "äRGER"


def test_a_link_whose_upload_is_gone_is_told(spell: Spell, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").touch()
    assert spell("upload", str(tmp_path / "data"), "-n", "gone").code == 0
    assert spell("link", "mine", "uploads/gone").code == 0
    done = spell("run", "-m", "mine/b", "true")
    assert (
        "it leads to 'uploads/gone/b', which does not exist.\n       See what is there: spell ls uploads/gone"
        in done.err
    )
    assert "The target of 'mine' is gone. Remove the link: spell unlink mine" in spell("rm", "-f", "uploads/gone").err
    done = spell("run", "-m", "mine", "true")
    assert "it leads to 'uploads/gone', which does not exist.\n       Remove it: spell unlink mine" in done.err
    assert spell("unlink", "mine").code == 0


def test_a_link_that_is_typed_the_wrong_way_round_is_told(spell: Spell) -> None:
    done = spell("link", "runs/1/model", "best")
    assert done.code == 2 and "Type: spell link best runs/1/model" in done.err, done
