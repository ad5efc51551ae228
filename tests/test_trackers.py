"""What runs log by trackers becomes metrics, without our import."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Spell, wait_for
from event_files import WRITER, script

from orchestrator.home import Home
from orchestrator.lifecycle.trackers import variables
from orchestrator.records.metrics import MetricRecord
from orchestrator.spec.run import RunSpec
from orchestrator.store import NewRun, Store
from orchestrator.store.database import Database
from orchestrator.store.trackers import TrackerBatch, TrackerFile
from orchestrator.telemetry.trackers import names, search
from orchestrator.telemetry.trackers.found import Picture
from orchestrator.telemetry.trackers.pictures import Pictures
from orchestrator.telemetry.trackers.there import note
from orchestrator.telemetry.trackers.tracked import TrackedFiles
from orchestrator.trackers import source

TRACKERS = Path(__file__).parent / "data" / "trackers"


@pytest.fixture(autouse=True)
def _cleared(spell: Spell) -> Iterator[None]:
    yield
    spell.clear()


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home for all tests here."""
    return make_shared("trackers")


def values(spell: Spell, number: int) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for item in spell.client.metrics.each(number):
        found.setdefault(item.name, []).append((item.step, item.value))
    return found


def notices(spell: Spell, number: int) -> list[str]:
    return [event.text for event in spell.client.runs.events(number) if event.kind == "notice"]


def until(path: Path) -> str:
    return f"while not os.path.exists({str(path)!r}): time.sleep(0.01)"


EVERYTHING = """
    write("logs/train", scalar("loss", 0.5, 1), scalar("loss", 0.25, 2))
    half = scalar("loss", 0.125, 3)
    write("logs/train", half[:20])
    write("logs/val", scalar("loss", 2, 1))
    GO
    write("logs/train", half[20:], scalar("loss", float("nan"), 4), scalar("loss", 9, 5))
    write("logs/train", histogram("weights", 1), picture("sample/dog", b"\\x89PNG dog", 7), hparams("lr", 0.25))
    write("logs/train", restart(3), scalar("loss", 0.75, 3), name="2.host")
"""


def test_event_files_become_metrics_while_the_run_writes_them(spell: Spell, tmp_path: Path) -> None:
    number = spell.cast(script(EVERYTHING.replace("GO", until(tmp_path / "go"))))
    wait_for(lambda: len(values(spell, number)) == 2, "the metrics of a running run")
    assert values(spell, number) == {"train/loss": [(1, 0.5), (2, 0.25)], "val/loss": [(1, 2.0)]}
    (tmp_path / "go").touch()
    assert spell.ended(number).exit_code == 0
    assert values(spell, number)["train/loss"] == [(1, 0.5), (2, 0.25), (3, 0.75)], (
        "a restart voids what follows its step"
    )
    assert spell.client.runs.get(number).logged == {"train/lr": "0.25"}
    summary = {item.name: (item.count, item.last, item.least) for item in spell.client.metrics.summaries(number)}
    assert summary == {"train/loss": (3, 0.75, 0.25), "val/loss": (1, 2.0, 2.0)}
    picture = spell.home.root / "runs" / str(number) / "tensorboard-images/train/sample/dog/7.png"
    assert picture.read_bytes() == b"\x89PNG dog"
    told = "\n".join(notices(spell, number))
    assert "Values that are NaN or infinite are not recorded as metrics: 1, in the files of TensorBoard" in told
    assert (
        "The event files of TensorBoard also hold 1 histogram, 1 image; saved below tensorboard-images: 1 image" in told
    )
    assert "Logged Parameters  train/lr=0.25" in spell("info", str(number)).out


def test_a_killed_server_loses_and_doubles_nothing(spell: Spell, tmp_path: Path) -> None:
    lines = f"""
        for step in range(50): write("tb", scalar("loss", step, step))
        {until(tmp_path / "go")}
        for step in range(50, 100): write("tb", scalar("loss", step, step))
        open({str(tmp_path / "written")!r}, "w")
        {until(tmp_path / "end")}
    """
    number = spell.cast(script(lines))
    wait_for(lambda: len(values(spell, number).get("loss", [])) == 50, "the first half")
    spell.kill_server()
    (tmp_path / "go").touch()
    wait_for((tmp_path / "written").exists, "the second half was written")
    wait_for(lambda: len(values(spell, number)["loss"]) == 100, "the second half")
    (tmp_path / "end").touch()
    assert spell.ended(number).exit_code == 0
    assert values(spell, number) == {"loss": [(step, step) for step in range(100)]}


def test_one_name_by_two_ways_and_a_damaged_file(spell: Spell) -> None:
    lines = """
        from orchestrator.runtime import send_metric
        send_metric("loss", 1)
        write("tb", scalar("loss", 2, 1), scalar("acc", 3, 1))
        write("tb", b"no frame at all, but long enough for one")
        open("metrics.csv", "w").write("name,price\\nnone,1\\n")
        os.mkfifo("events.out.tfevents.9.pipe")
        os.mkfifo("mlflow.db-journal")
        os.symlink("/etc/passwd", "events.out.tfevents.9.link")
        for name in ("some.db", "mlflow.db"): open(name, "w").write("no database " * 100)
    """
    number = spell.run(script(lines)).number
    assert values(spell, number) == {"loss": [(0, 1.0)], "tensorboard/loss": [(1, 2.0)], "acc": [(1, 3.0)]}
    told = sorted(words.partition(": ")[0] for words in notices(spell, number))
    assert told == [
        "Metrics of tb/events.out.tfevents.1.host have names that another source of this run uses",
        "Not kept",
        "mlflow.db is damaged",
        "tb/events.out.tfevents.1.host is damaged",
    ]
    assert any("mlflow.db-journal is not a regular file" in words for words in notices(spell, number))


OTHERS = f"""
    import gzip, pathlib, shutil, sqlite3
    kept = pathlib.Path({str(TRACKERS)!r})
    def unpack(name, target):
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
        open(target, "wb").write(gzip.decompress((kept / name).read_bytes()))
    unpack("wandb/run-first.wandb.gz", "wandb/offline-run-20261130_220705-abc/run-abc.wandb")
    unpack("mlflow/mlflow.db.gz", "mlflow.db")
    with sqlite3.connect("mlflow.db") as db:
        db.execute("DELETE FROM metrics WHERE rowid < 7")
        db.execute("UPDATE runs SET start_time = ? WHERE name = 'second'", (time.time() * 1000,))
        db.execute("UPDATE metrics SET timestamp = ?", (time.time() * 1000,))
    unpack("trackio/project.db.gz", os.environ["TRACKIO_DIR"] + "/project.db")
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 1))
    with sqlite3.connect(os.environ["TRACKIO_DIR"] + "/project.db") as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("UPDATE metrics SET timestamp = ?", (now,))
    os.makedirs("logs/version_0")
    open("logs/version_0/metrics.csv", "w").write("epoch,step,t_loss\\n0,1,0.5\\n")
    GO
    open("logs/version_0/metrics.csv", "w").write("epoch,step,t_loss,v_loss\\n0,1,0.5,\\n0,2,0.25,7\\n")
"""


def test_the_files_of_other_trackers_become_metrics(spell: Spell, tmp_path: Path) -> None:
    number = spell.cast(script(OTHERS.replace("GO", until(tmp_path / "go"))))
    wait_for(lambda: "t_loss" in values(spell, number), "the metrics of a running run")
    (tmp_path / "go").touch()
    assert spell.ended(number).exit_code == 0
    found = values(spell, number)
    assert found["t_loss"] == [(1, 0.5), (2, 0.25)] and found["v_loss"] == [(2, 7.0)]
    assert found["val/acc"] == [(step, step) for step in range(12)], "wandb"
    assert found["val/loss"] == [(0, 1.0), (1, 0.5), (2, 1 / 3)], "mlflow"
    assert found["late"] == [(10, 1.0)], "trackio, whose file was read first"
    assert found["wandb/late"] == [(100, 3.0)]
    logged = spell.client.runs.get(number).logged
    assert logged == {"lr": "0.1", "more": "7", "nested": '{"a": 1}', "opt": "adam: x"}
    bare = spell.run("true").number
    (change, *_) = spell.client.compare.diff(str(bare), str(number)).logged
    assert (change.name, change.before, change.after) == ("lr", None, "0.1")
    assert "lr: (none) → 0.1" in spell("diff", str(bare), str(number), "--logged").out
    assert spell("export", "--to", "mlflow", str(number), str(tmp_path / "out")).code == 0
    (written,) = source.find("mlflow", tmp_path / "out")
    assert written.run.spec["params"] == logged
    outputs = {item.path for item in spell.client.runs.artifacts(str(number))}
    assert {"mlflow.db", "trackio/project.db", "logs/version_0/metrics.csv"} <= outputs
    assert not [path for path in outputs if path.endswith(("-wal", "-shm"))], "reading leaves nothing"


ATTEMPTS = """
    again = os.environ["SPELL_ATTEMPT"] == "2"
    write("tb", scalar("loss", 1 + again, 0))
    write("checkpoints/tb", scalar("kept", 1 + again, 0), name=os.environ["SPELL_ATTEMPT"])
    open("metrics.csv", "w").write("step,rows\\n0,1\\n1,1\\n" if not again else "step,rows\\n0,2\\n")
    raise SystemExit(not again)
"""


def test_each_attempt_has_files_of_its_own(spell: Spell) -> None:
    """A file at the same path, perhaps with the same inode; checkpoints of the attempt before are not read again."""
    found = values(spell, spell.run(script(ATTEMPTS), retries=1).number)
    assert found["tb/loss"] == [(0, 1.0), (0, 2.0)]
    assert found["checkpoints/tb/kept"] == [(0, 1.0), (0, 2.0)]
    assert found["rows"] == [(0, 1.0), (1, 1.0), (0, 2.0)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one run."""
    store = Store(Database(tmp_path / "spell.db"))
    store.add(NewRun(RunSpec(command="true"), "process", 1.0, None, 0))
    return store


@pytest.fixture
def write() -> Callable[..., None]:
    """Writes an event file with one value: folder, tag, value, step."""
    words: dict[str, Any] = {}
    exec(WRITER, words)
    return lambda folder, *value, name="1.host": words["write"](folder, words["scalar"](*value), name=name)


def begun(tmp_path: Path, attempt: int = 1) -> tuple[Home, Path]:
    """A home with a run whose command is about to be started, and its code."""
    home = Home(tmp_path / "home")
    code = home.work_dir(1) / "code"
    code.mkdir(parents=True, exist_ok=True)
    home.attempt_dir(1, attempt).mkdir(parents=True)
    return home, code


def recorded(store: Store) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for _, item in store.metrics_after(1, 0, 1000):
        found.setdefault(item.name, []).append(item.value)
    return found


def test_what_was_there_is_not_of_the_run_also_when_it_is_appended_to(
    store: Store, tmp_path: Path, write: Callable[..., None]
) -> None:
    home, code = begun(tmp_path)
    metric, parameter = (code / f"mlruns/0/{'0' * 32}/{kind}" for kind in ("metrics/acc", "params/lr"))
    metric.parent.mkdir(parents=True)
    parameter.parent.mkdir()
    write(code / "tb", "loss", 1, 1)
    metric.write_text(f"{int(time.time() * 1000) + 60_000} 1 1\n")
    parameter.write_text("old")
    (code / "metrics.csv").write_text("step,rows\n0,1\n")
    note(home, 1, 1)
    write(code / "tb", "loss", 2, 2)
    metric.open("a").write(f"{int(time.time() * 1000) + 60_000} 2 2\n")
    parameter.touch()
    (code / "metrics.csv").write_text("step,rows,more\n0,1,\n1,2,3\n")
    TrackedFiles(store, home, 1, 1).finish()
    assert recorded(store) == {"loss": [2.0], "acc": [2.0], "rows": [2.0], "more": [3.0]}
    assert store.trackers.parameters(1) == {}


def test_each_attempt_has_the_bare_names_for_its_first_source(store: Store, tmp_path: Path) -> None:
    log = gzip.decompress((TRACKERS / "wandb/run-first.wandb.gz").read_bytes())
    for attempt in (1, 2):
        home, code = begun(tmp_path, attempt)
        note(home, 1, attempt)
        for number in range(2):
            (code / f"run-{attempt}{number}.wandb").write_bytes(log)
        TrackedFiles(store, home, 1, attempt).finish()
        shutil.rmtree(code)
        found = {name: len(each) for name, each in recorded(store).items() if name.endswith("val/acc")}
        assert len(found) == 2 and set(found.values()) == {12 * attempt}, found
        assert found["val/acc"]
    assert {name.rpartition("/")[0] for name in store.trackers.parameters(1)} <= {
        "",
        found.popitem()[0].removesuffix("/val/acc"),
    }


def test_names_that_are_no_text_and_many_damaged_files(
    store: Store, tmp_path: Path, write: Callable[..., None]
) -> None:
    home, code = begun(tmp_path)
    note(home, 1, 1)
    write(os.fsencode(code).decode() + "/a\udcff", "loss", 1, 1)
    write(code / "b", "acc", 2, 1)
    run = code / "mlruns/0" / ("0" * 32) / "params"
    run.mkdir(parents=True)
    (run / "a\udcff").write_text("3")
    for number in range(9):
        (code / f"events.out.tfevents.{number}.\udcff").write_bytes(b"no frame at all, but long enough for one")
    TrackedFiles(store, home, 1, 1).finish()
    assert recorded(store) == {"a\\udcff/loss": [1.0], "b/acc": [2.0]}
    assert store.trackers.parameters(1) == {"a\\udcff": "3"}
    told = [event.text for event in store.events(1) if event.kind == "notice"]
    assert len(told) == 6 and told[0].startswith("events.out.tfevents.0.\\xff is damaged")
    assert "names of others: 4" in told[-1]


def test_names_and_positions_in_the_store(store: Store) -> None:
    def batch(source: str, *steps: int, void_from: int | None = None) -> TrackerBatch:
        return TrackerBatch(source, "", [MetricRecord(1, "loss", step, step, 1.0) for step in steps], {}, {}, void_from)

    first, second = TrackerFile("a", 1, 7, 10), TrackerFile("a", 1, 7, 20)
    assert store.trackers.add(1, None, first, [batch("tensorboard:x", 1, 2, 3)]) == {}
    assert store.trackers.add(1, None, first, [batch("tensorboard:x", 1, 2, 3)]) is None, "another has recorded it"
    assert store.trackers.add(1, first, second, [batch("tensorboard:x", 2, void_from=2)]) == {}
    assert store.trackers.add(1, first, second, [batch("tensorboard:x", 9)]) is None
    assert store.trackers.add(1, None, TrackerFile("b", 1, 8, 1), [batch("wandb:y", 5)]) == {"loss": "wandb/loss"}
    assert store.add_metrics(1, [MetricRecord(1, "loss", 0, 7, 1.0)], 0, 5) == {"loss": "send_metric/loss"}
    assert store.last_steps(1)["loss"] == 0, "of send_metric"
    found = {item.name: (item.count, item.step, item.last, item.most) for item in store.metric_summaries(1)}
    assert found == {"loss": (2, 2, 2.0, 2.0), "wandb/loss": (1, 5, 5.0, 5.0), "send_metric/loss": (1, 0, 7.0, 7.0)}
    assert store.trackers.files(1)["a"] == second


# -- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "folders", "prefix"),
    [
        ("runs/Nov30_22-07-05_host", {"runs/Nov30_22-07-05_host"}, ""),
        ("", {""}, ""),
        ("logs/train", {"logs/train"}, "train/"),
        ("logs/validation", {"logs/train", "logs/validation"}, "validation/"),
        ("tb", {"tb", "tb/loss_a"}, ""),
        ("tb/loss_a", {"tb", "tb/loss_a"}, "loss_a/"),
        ("tb/1796076399.12", {"tb", "tb/1796076399.12"}, ""),
        ("", {"", "a/b"}, ""),
        ("a/b", {"", "a/b"}, "a/b/"),
    ],
)
def test_folders_are_told_apart(folder: str, folders: set[str], prefix: str) -> None:
    assert names.of_folder(folder, folders) == prefix


def test_runs_of_a_tracker_are_told_apart() -> None:
    assert names.of_run("mlflow", "first", []) == ""
    assert names.of_run("mlflow", "second", ["mlflow:abc"]) == "second/"
    assert names.of_run("wandb", "second", ["mlflow:abc"]) == ""


def test_what_is_found_in_a_work_dir(tmp_path: Path) -> None:
    run = "0825ce37739d4bf99fb6c3ceb87e1446"
    wanted = {
        "a/events.out.tfevents.1.host.5.0.v2": search.TENSORBOARD,
        "wandb/offline-run-20261130_220705-abc/run-abc.wandb": search.WANDB,
        f"mlruns/0/{run}/metrics/val/loss": search.MLFLOW_METRIC,
        f"mlruns/0/{run}/params/lr": search.MLFLOW_PARAMETER,
        "mlflow.db": search.DATABASE,
        "logs/version_3/metrics.csv": search.LIGHTNING,
    }
    others = [
        "venv/pyvenv.cfg",
        "venv/x.db",
        ".git/x.db",
        "wandb/offline-run-20261130_220705-abc/files/x.db",
        "metrics/loss",
        "a.csv",
    ]
    for name in (*wanted, *others):
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "code/link.db").symlink_to(tmp_path / "code/mlflow.db")
    (tmp_path / "code/linked").symlink_to(tmp_path / "code/a")
    assert dict(search.files(tmp_path / "code")) == wanted


def test_pictures_keep_to_their_folder(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path / "pictures")
    kept = [
        Picture("../../etc/./x y", 1, b"\x89PNG"),
        Picture("a", 2, b"BM1"),
        Picture("a", 2, b"BM2"),
        Picture("b", 1, b"text"),
    ]
    assert pictures.keep("", kept) == 3
    code = tmp_path / "code"
    code.mkdir()
    pictures.deliver(code)
    found = sorted(path.relative_to(code).as_posix() for path in code.rglob("*.*"))
    assert found == [f"tensorboard-images/{name}" for name in ("a/2-2.bmp", "a/2.bmp", "etc/x_y/1.png")]


def test_variables_of_trackers_are_those_of_the_person_where_given(tmp_path: Path) -> None:
    ours = {
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": "sqlite:////spell/mlflow.db",
        "TRACKIO_DIR": "/spell/trackio",
    }
    assert variables("/spell", [], {"HOME": str(tmp_path)}, is_host=True) == ours
    taken = ["WANDB_API_KEY", "MLFLOW_TRACKING_URI", "TRACKIO_DIR"]
    assert variables("/spell", taken, {"HOME": str(tmp_path)}, is_host=True) == {}
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123\n")
    assert "WANDB_MODE" not in variables("/spell", [], {"HOME": str(tmp_path)}, is_host=True)
    assert "WANDB_MODE" in variables("/spell", [], {"HOME": str(tmp_path)}, is_host=False)
