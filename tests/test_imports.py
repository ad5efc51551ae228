"""Runs of MLflow, wandb and Trackio become numbered runs; on files that the real packages wrote (tests/data/make_tracked.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Spell

from orchestrator import Mount
from orchestrator.client import imports as sending
from orchestrator.data import imports
from orchestrator.errors import ConnectionLost, InvalidConfig
from orchestrator.formats.records import TrackedRun
from orchestrator.home import Home
from orchestrator.records.imports import ImportedRun
from orchestrator.spec.run import RunSpec, to_wire
from orchestrator.trackers import source, words

KEPT = Path(__file__).parent / "data" / "howto" / "trackers"
RUN = ImportedRun(
    origin="mlflow:x",
    tracker="mlflow",
    project="p",
    path="/p",
    spec=to_wire(RunSpec(command="# x", machine_type="")),
    reason="imported_failed",
    started_at=100.0,
    ended_at=103.0,
)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a person has it: mlflow.db with mlruns, wandb, trackio. It is not where it was written."""
    folder = Path(shutil.copytree(KEPT, tmp_path_factory.mktemp("tracked") / "project"))
    for path in folder.rglob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home."""
    return make_shared("imports")


def test_runs_of_all_trackers_become_numbered_runs(spell: Spell, tracked: Path) -> None:
    spell.client.projects.create("old")
    done = spell("import", "mlflow", str(tracked), "-p", "old", "--label", "moved")
    assert done.code == 1, "one run has no end"
    assert "✔ Imported 'rate 0.1' as run 1 (complete, 1 file)" in done.out
    assert "Values of metrics that are not finite were left out: bad (1)" in done.out
    assert f"Run 'open' was not imported. {tracked}/mlflow.db: the run has no end: its status is RUNNING" in done.err
    assert "binned" not in done.out + done.err
    assert [item["what"] for item in spell("import", "wandb", str(tracked), "--json").json()] == ["imported"]
    assert spell("import", "trackio", str(tracked / "trackio")).code == 0
    first, second, broken, wandb, trackio = (spell.client.runs.get(number) for number in range(1, 6))
    assert first.name == "rate-0.1" and first.command == "# mlflow: train.py lr=0.1 opt.name=adam"
    assert first.spec["params"] == {"lr": "0.1", "opt.name": "adam"}
    assert (first.labels, first.project, first.description) == (["moved", "team:nlp"], "old", "finetunes")
    assert first.imported and first.imported.project == "jokes" and first.imported.tracker == "mlflow"
    assert (first.state, broken.state, broken.message) == (
        "complete",
        "failed",
        "imported from mlflow, where it failed",
    )
    assert first.created_at == first.started_at < second.started_at < broken.started_at, "by the time of their start"
    assert (wandb.exit_code, wandb.state, wandb.labels) == (0, "complete", ["first"])
    assert wandb.spec["params"] == {"lr": "0.1", "model.layers": "2", "late": "true"}
    assert "wandb==0.31.0" in wandb.packages
    assert trackio.spec["params"] == {"lr": "0.1"}
    for number in (1, 4, 5):
        assert [item.step for item in spell.client.metrics.list(number, "loss")] == [0, 1, 2, 3, 4]
    assert {item.name for item in spell.client.metrics.summaries(4)} == {"loss", "val.acc"}
    assert spell.log(4).startswith(b"step 0\nstep 1\n")
    assert (
        spell("cat", "runs/1/samples/joke.txt", "runs/4/notes.txt").out == "why did the run cross the road"
        "it is a joke\n"
    )
    assert (spell.home.run_dir(1) / "samples").stat().st_mode & 0o222 == 0, "sealed"


def test_a_run_is_imported_once(spell: Spell, tracked: Path) -> None:
    moved = Path(shutil.copytree(tracked, tracked.with_name("moved")))
    done = spell("import", "mlflow", str(moved / "mlflow.db"), "--partial")
    assert f"Run 'rate 0.1' was imported before, as run 1. It came from {tracked}/mlflow.db.\n" in done.out
    assert done.code == 0
    assert "✔ Imported 'open' as run 6 (interrupted, 0 files)" in done.out
    assert (
        spell.client.imports.add(dataclasses.replace(RUN, origin=spell.client.runs.get(1).imported.origin)).number == 1
    )


def test_runs_of_trackio_with_the_same_names_are_told_apart_by_their_time(tracked: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(tracked / "trackio" / "jokes.db", tmp_path))
    (one,), (copy,) = source.find("trackio", tracked / "trackio"), source.find("trackio", other)
    with contextlib.closing(sqlite3.connect(other)) as database, database:
        database.execute("UPDATE configs SET config = json_set(config, '$._Created', '2020-01-01T00:00:00.5')")
    (later,) = source.find("trackio", other)
    assert copy.run.origin == one.run.origin != later.run.origin and copy.title == later.title


def test_an_imported_run_is_a_run_but_cannot_be_cast_again(spell: Spell) -> None:
    assert "# mlflow: train.py lr=0.1" in spell("ps").out
    assert "Imported From  mlflow:" in spell("info", "1").out
    assert "params.lr: 0.1 → 0.01" in spell("diff", "1", "2").out
    assert spell("verify", "1").code == 0
    assert spell.run("cat joke.txt", mounts=(Mount("runs/1/samples/joke.txt", "joke.txt"),)).state == "complete"
    for verb in ("rerun", "export"):
        refused = spell(verb, "1")
        assert refused.code == 1 and "Run 1 was imported from mlflow, which knows neither its code" in refused.err


@pytest.mark.parametrize(
    ("tracker", "name", "content", "words"),
    [
        ("mlflow", "mlflow.db", b"no database", "mlflow.db cannot be read: file is not a database"),
        ("trackio", "jokes.db", b"", "jokes.db is no database of Trackio"),
        ("mlflow", "other", b"", "holds neither mlflow.db nor mlruns"),
        ("wandb", "other", b"", "holds no run of wandb"),
    ],
)
def test_what_is_no_store_of_a_tracker_is_told(
    tracker: str, name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Exception, match=words):
        list(source.find(tracker, tmp_path))


def test_damaged_and_unfinished_runs_of_wandb_are_refused_with_the_reason(tracked: Path, tmp_path: Path) -> None:
    whole = next(tracked.glob("wandb/*/*.wandb")).read_bytes()
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 1
    for content, reason in (
        (whole[:-30], "is cut off"),
        (bytes(broken), "has a wrong checksum"),
        (whole[:7], "nothing was written to it yet"),
        (b"x" * 100, "it does not begin as a file of wandb does"),
    ):
        path = tmp_path / "run-x.wandb"
        path.write_bytes(content)
        (found,) = source.find("wandb", tmp_path)
        assert reason in found.refusal and str(path) in found.refusal
    assert not next(source.find("wandb", tracked)).refusal


def test_only_files_of_the_trackers_own_folders_are_taken(spell: Spell, tmp_path: Path) -> None:
    """A store that somebody else made names folders of this machine, and has links to them."""
    private, store = tmp_path / "private", tmp_path / "theirs"
    private.mkdir()
    (private / "key").write_text("secret")
    for key, uri in (("a" * 32, str(private)), ("b" * 32, "../private/."), ("c" * 32, "/gone")):
        run = store / "mlruns" / "1" / key
        run.mkdir(parents=True)
        (run / "meta.yaml").write_text(f"artifact_uri: {uri}\nrun_id: {key}\nstatus: 3\nstart_time: 1000\n")
    (store / "mlruns" / "1" / "meta.yaml").write_text("name: x\n")
    own = store / "mlruns" / "1" / ("c" * 32) / "artifacts"
    own.mkdir()
    (own / "real").write_text("x")
    (own / "near").symlink_to("real")
    (own / "far").symlink_to(private / "key")
    (own / "folder").symlink_to(private)
    (own.parent / "params").symlink_to(private)
    absolute, relative, links = source.find("mlflow", store)
    assert not absolute.files and "lie outside of the store" in absolute.run.notices[0], "as does a path that goes up"
    assert not relative.files and sorted(links.files) == ["near", "real"] and not links.run.spec["params"]
    assert len([text for text in links.run.notices if "was left out" in text]) == 2
    absolute, _, links = source.find("mlflow", store, [private])
    assert sorted(absolute.files) == ["key"] and sorted(links.files) == ["far", "near", "real"]
    dry = spell("import", "mlflow", str(store), "--dry-run").out
    assert f"were left out: {private}; --artifacts-from DIR" in dry
    dry = spell("import", "mlflow", str(store), "--dry-run", "--artifacts-from", str(private)).out
    assert f"Its artifacts were taken from {private}" in dry
    for tracker in ("wandb", "trackio"):
        folder = Path(shutil.copytree(KEPT / tracker, tmp_path / tracker))
        for path in folder.rglob("*.gz"):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        (found,) = source.find(tracker, folder)
        place = Path(found.run.path).parent / ("files" if tracker == "wandb" else f"media/jokes/{found.title}")
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(private)
        (found,) = source.find(tracker, folder)
        assert not found.files and "leads out of the tracker's own folders" in found.run.notices[-1]


def test_damaged_runs_of_a_folder_of_mlflow_are_refused_with_the_reason_and_taken_in_part(
    spell: Spell, tmp_path: Path
) -> None:
    store = tmp_path / "mlruns" / "0"
    for name in ("good", "metric", "meta"):
        (store / name / "metrics").mkdir(parents=True)
        (store / name / "meta.yaml").write_text(
            f"run_id: {name}\nrun_name: {name}\nstatus: 3\nstart_time: 1\nend_time: 2\n"
        )
        (store / name / "metrics" / "loss").write_text("1 0.5 0\n2 0.4 1\n")
    (store / "meta.yaml").write_text("experiment_id: '0'\nname: damaged\n")
    (store / "metric" / "metrics" / "loss").write_text("1 0.5 0\ngarbage xx\n")
    (store / "meta" / "meta.yaml").write_text(":::: {{")
    found = {item.title: item for item in source.find("mlflow", tmp_path)}
    assert not found["good"].refusal
    assert "metrics/loss: the line" in found["metric"].refusal
    assert "meta.yaml: it is missing, or does not say which run it is of" in found["meta"].refusal
    looked = spell("import", "mlflow", str(tmp_path), "--dry-run")
    assert (looked.code, looked.out.count("Would import")) == (1, 1), looked
    done = spell("import", "mlflow", str(tmp_path), "--partial", "--json")
    runs = {item["title"]: item["run"] for item in done.json()}
    assert (done.code, set(runs)) == (0, {"good", "metric", "meta"})
    assert [point.value for point in spell.client.metrics.list(runs["metric"])] == [0.5]
    assert [point.value for point in spell.client.metrics.list(runs["meta"])] == [0.5, 0.4]


# -- the other way ----------------------------------------------------------------------------------------------------


def test_what_is_written_for_mlflow_reads_as_it_was(spell: Spell, tracked: Path, tmp_path: Path) -> None:
    """`read_mlflow.py` in tests/data shows the same with the real MLflow."""
    out = tmp_path / "out"
    done = spell("export", "--to", "mlflow", "1", "4", "5", str(out))
    assert done.out.count("✔ Wrote run ") == 3 and "mlflow ui --backend-store-uri sqlite:///" in done.err
    assert spell("export", "--to", "mlflow", "1", str(out)).out == "Run 1 is there already.\n"
    before = {item.run.origin: item for item in source.find("mlflow", tracked)}
    after = {item.run.spec["description"] + item.run.spec["command"]: item for item in source.find("mlflow", out)}
    assert len(after) == 3
    again = next(item for item in after.values() if item.run.origin in before)
    first = before[again.run.origin]
    assert again.run.spec["params"] == first.run.spec["params"] and again.run.project == "old"
    assert {*again.run.spec["labels"]} >= {"team:nlp", "moved"}
    assert [*again.points()] == [point for point in first.points() if point.name == "loss"]
    assert (again.run.started_at, again.run.ended_at) == (first.run.started_at, first.run.ended_at)
    assert again.files["samples/joke.txt"].read_text() == "why did the run cross the road"
    wandb = next(item for item in after.values() if "log.txt" in item.files)
    assert wandb.files["log.txt"].read_text().startswith("step 0") and wandb.run.spec["params"]["model.layers"] == "2"


def test_runs_for_mlflow_are_named_or_filtered(spell: Spell, tmp_path: Path) -> None:
    for typed, said in (
        ([str(tmp_path)], "Runs or PATH are missing."),
        (["1", "--all", str(tmp_path)], "Name runs, or give --all, --label or --project; not both."),
        (["1", "-o", "x", str(tmp_path)], "do not go with --to"),
    ):
        done = spell("export", "--to", "mlflow", *typed)
        assert done.code == 2 and said in done.err
    assert "One run is exported at a time." in spell("export", "1", "2").err
    (tmp_path / "mlflow.db").write_bytes(b"other" * 200)
    assert (
        "mlflow.db cannot be used: file is not a database" in spell("export", "--to", "mlflow", "1", str(tmp_path)).err
    )


# -- whole or not at all ----------------------------------------------------------------------------------------------


def archive(*members: tuple[str, bytes]) -> bytes:
    """An archive as a client sends it."""
    return b"".join(sending._archive([sending._Member(name, len(data), data=data) for name, data in members]))


WHOLE = (
    ("run.json", json.dumps(to_wire(RUN)).encode()),
    ("metrics.jsonl", b'{"name": "loss", "step": 1, "value": 0.5, "at": 101.0}\n'),
    ("log", b"said\n"),
    ("outputs/a/b.txt", b"content"),
    ("end", b""),
)


def test_a_server_that_is_killed_while_a_run_arrives_keeps_nothing_of_it(spell: Spell) -> None:
    before = [run.number for run in spell.client.runs.list()]

    def halves() -> Iterator[bytes]:
        yield archive(*WHOLE)[:2048]
        spell.kill_server()
        yield archive(*WHOLE)[2048:]

    with pytest.raises(ConnectionLost):
        size = len(archive(*WHOLE))
        spell.client.transport.call("POST", "/imports", content=halves(), params={"size_bytes": size})
    assert [run.number for run in spell.client.runs.list()] == before, "the next server"
    assert [path.name for path in spell.home.runs.iterdir() if path.name.startswith(".")] == []
    number = spell.client.imports.add(RUN).number
    assert number > max(before) and spell.client.runs.get(number).duration_s == 3.0


def test_more_bytes_than_were_announced_are_refused(spell: Spell) -> None:
    """Room is asked for by the announced size; and a big archive is written beside the loop that answers others."""
    run = dataclasses.replace(RUN, origin="mlflow:big")
    content = archive(("run.json", json.dumps(to_wire(run)).encode()), ("outputs/big", bytes(3 << 20)), WHOLE[-1])
    add = functools.partial(spell.client.transport.call, "POST", "/imports", content=content)
    with pytest.raises(InvalidConfig, match=f"more than the announced {len(content) - 1} bytes"):
        add(params={"size_bytes": len(content) - 1})
    assert [path.name for path in spell.home.runs.iterdir() if path.name.startswith(".")] == []
    number = add(params={"size_bytes": len(content)})["number"]
    assert spell.client.runs.get(number).outputs_bytes >= 3 << 20


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (WHOLE[:-1], "is not complete"),
        (WHOLE[1:], "is not complete"),
        ((*WHOLE[:1], ("outputs/../../x", b""), WHOLE[-1]), r"\.\."),
        ((*WHOLE[:1], ("other", b""), WHOLE[-1]), "has no 'other'"),
    ],
)
def test_an_archive_that_is_not_ours_is_refused(
    members: tuple[tuple[str, bytes], ...], words: str, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    home.create()
    arriving = imports.Arriving(home)
    arriving.archive.write_bytes(archive(*members))
    with pytest.raises(InvalidConfig, match=words):
        arriving.unpack()
    assert not (tmp_path / "x").exists()


def test_a_run_that_was_recorded_is_finished_after_a_kill(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    for origin in ("recorded", "not recorded"):
        arriving = imports.Arriving(home)
        arriving.archive.write_bytes(archive(*WHOLE))
        arriving.unpack()
        assert [item.path for item in arriving.outputs()] == ["a/b.txt"]
        arriving.note(7, origin)
    imports.recover(home, {"recorded": 7}.get)
    assert [path.name for path in home.runs.iterdir()] == ["7"]
    assert (home.run_dir(7) / "a" / "b.txt").read_bytes() == b"content"
    assert home.log(7).read_bytes() == b"said\n" and b"loss" in home.metrics(7).read_bytes()
    imports.recover(home, {"recorded": 7}.get)


# -- words ------------------------------------------------------------------------------------------------------------


def test_names_of_trackers_become_names_of_ours() -> None:
    assert [words.name_of(text) for text in ("sunny cat 3", "3", "latest", "7b run", "日本", "-a-")] == [
        "sunny-cat-3",
        "",
        "run-latest",
        "run-7b-run",
        "",
        "a",
    ]
    assert words.label_of("a=b, c") == "a_b_ c" and words.label_of("==") == "_"
    assert words.flattened({"a": '{"b": {"c": 1}, "d": []}', "e": "{x", "f": "1"}) == {
        "a.b.c": "1",
        "a.d": "[]",
        "e": "{x",
        "f": "1",
    }


def test_parameters_of_any_name_and_size_become_a_spec() -> None:
    run = dataclasses.replace(
        TrackedRun("key"), parameters={"a/b": "1", "a.b": "2", "0x": ":x:", "": "\0", "long": "v" * 9000}
    )
    spec, notices = words.spec_of("mlflow", run)
    assert spec["params"] | {"long": ""} == {"a.b": "1", "a.b_2": "2", "_0x": ":x:", "_": " ", "long": ""}
    assert len(spec["params"]["long"]) == 2001 and notices == []
    many = dataclasses.replace(run, parameters={f"p{n}": "v" * 1000 for n in range(100)})
    spec, notices = words.spec_of("mlflow", many)
    assert 50 < len(spec["params"]) < 60 and "too many parameters" in notices[0]
