"""The readers of the files of trackers, on files that the real packages wrote (`tests/data/trackers`)."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.formats import csv_log, mlflow_store, sqlite_file, tfevents, trackio_store, wandb_log
from orchestrator.formats.checksums import masked
from orchestrator.formats.records import Batch, Point

TRACKERS = Path(__file__).parent / "data" / "trackers"


def events_of(path: Path) -> list[tfevents.Event]:
    with path.open("rb") as file:
        batch = tfevents.read(file, 0, 1 << 20)
    assert (batch.next, batch.damage) == (path.stat().st_size, "")
    return batch.items


def event_files(folder: str) -> list[Path]:
    return sorted((TRACKERS / folder).rglob(f"*{tfevents.MARK}*"))


def unpacked(name: str, target: Path) -> Path:
    target.write_bytes(gzip.decompress((TRACKERS / name).read_bytes()))
    return target


# -- TensorBoard ------------------------------------------------------------------------------------------------------


def test_scalars_of_both_kinds_and_all_else_that_events_hold() -> None:
    first, restarted, session = event_files("tensorboard")
    values = [(event.step, value) for event in events_of(first) for value in event.values]
    numbers = {tag: [(step, value.number) for step, value in values if value.tag == tag] for tag in ("loss", "rate")}
    assert str(numbers["loss"]) == str(numbers["rate"]) == "[(1, 1.0), (2, 0.5), (5, 0.25), (3, nan), (4, inf)]"
    others = {(step, value.tag, value.kind) for step, value in values if value.kind != "scalar"}
    assert others == {(1, "weights", "histogram"), (7, "picture", "image"), (1, "note/text_summary", "text")}
    (picture,) = (value.pictures for _, value in values if value.tag == "picture")
    assert [data[:4] for data in picture] == [b"\x89PNG"]
    again = events_of(restarted)
    assert [event.step for event in again if event.restarts] == [4]
    assert [value.number for event in again for value in event.values] == [0.125]
    (hparams,) = (value.hparams for event in events_of(session) for value in event.values if value.hparams)
    assert hparams == {"lr": "0.1", "opt": "adam", "warm": "1"}


def test_files_of_tensorboardx() -> None:
    found = {
        path.parent.relative_to(TRACKERS).as_posix(): [
            (event.step, value.tag, value.number, dict(value.hparams))
            for event in events_of(path)
            for value in event.values
            if value.kind == "scalar" or value.hparams
        ]
        for path in event_files("tensorboardx")
    }
    assert found == {
        "tensorboardx": [(1, "loss", 0.5, {})],
        "tensorboardx/both/a": [(3, "both", 1.0, {})],
        "tensorboardx/both/b": [(3, "both", 2.0, {})],
        "tensorboardx/session": [
            (0, "_hparams_/session_start_info", 0.0, {"lr": "0.1", "warm": "true"}),
            (0, "hp/acc", 0.5, {}),
        ],
    }


def test_a_half_written_frame_is_read_again_and_a_damaged_one_is_told() -> None:
    data = event_files("tensorboard")[0].read_bytes()
    whole = tfevents.read(io.BytesIO(data), 0, 1 << 20)
    for cut in range(0, len(data), 37):
        part = tfevents.read(io.BytesIO(data[:cut]), 0, 1 << 20)
        rest = tfevents.read(io.BytesIO(data), part.next, 1 << 20)
        assert (part.damage, rest.damage) == ("", "")
        assert len(part.items) + len(rest.items) == len(whole.items)
    one = tfevents.read(io.BytesIO(data), 0, 1)
    assert (len(one.items), one.more) == (1, True)
    broken = bytearray(data)
    broken[one.next + 14] ^= 1
    batch = tfevents.read(io.BytesIO(broken), 0, 1 << 20)
    assert (len(batch.items), batch.next) == (len(whole.items) - 1, len(data)), "the other frames are read"
    assert batch.damage == f"the frame at byte {one.next} has a wrong checksum"
    broken[one.next] ^= 1
    batch = tfevents.read(io.BytesIO(broken), 0, 1 << 20)
    assert (len(batch.items), batch.next) == (1, one.next)
    assert batch.damage == f"the length of the frame at byte {one.next} has a wrong checksum"


def test_what_claims_to_be_a_frame() -> None:
    def frame(data: bytes, length: int | None = None) -> bytes:
        head = struct.pack("<Q", len(data) if length is None else length)
        return head + struct.pack("<I", masked(head)) + data + struct.pack("<I", masked(data))

    batch = tfevents.read(io.BytesIO(frame(b"\xff" * 40) + frame(b"", 1 << 60)), 0, 1 << 20)
    assert (batch.items, batch.next, batch.damage) == ([], 56, "the frame at byte 0 holds no event")
    assert masked(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF  # RFC 3720
    assert tfevents.read(io.BytesIO(b"no event file at all"), 0, 1 << 20).damage


# -- Weights & Biases -------------------------------------------------------------------------------------------------


def test_an_offline_run_of_wandb(tmp_path: Path) -> None:
    data = unpacked("wandb/run-first.wandb.gz", tmp_path / "run.wandb").read_bytes()
    state, points, position = wandb_log.RunState(), [], 0
    assert len(data) > 2 * (32 << 10), "records span blocks"
    while True:
        batch = wandb_log.read(io.BytesIO(data), position, 1000)
        assert batch.damage == ""
        for record in batch.items:
            state.add(record)
            points += wandb_log.points(record) if record.kind == "history" else []
        position = batch.next
        if not batch.more:
            break
    assert position == len(data)
    run = state.result()
    assert (run.name, run.project, run.status, run.tags) == ("first", "project", "finished", {"tag": ""})
    assert run.parameters == {"lr": "0.1", "nested": '{"a": 1}', "more": "7"}
    assert run.started_at and run.ended_at and 0 <= run.ended_at - run.started_at < 60
    assert [(point.step, point.value) for point in points if point.name == "loss"] == [
        (n, 1 / (n + 1)) for n in range(12)
    ]
    assert {point.name for point in points} == {"loss", "val/acc", "deep.x", "none", "late"}
    assert [(point.step, point.at > 1e9) for point in points if point.name == "late"] == [(100, True)]


def test_a_cut_or_damaged_log_of_wandb(tmp_path: Path) -> None:
    data = unpacked("wandb/run-first.wandb.gz", tmp_path / "run.wandb").read_bytes()
    whole = wandb_log.read(io.BytesIO(data), 0, 1 << 20)
    for cut in range(0, len(data), 997):
        part = wandb_log.read(io.BytesIO(data[:cut]), 0, 1 << 20)
        rest = wandb_log.read(io.BytesIO(data), part.next, 1 << 20)
        assert (part.damage, rest.damage) == ("", "")
        assert len(part.items) + len(rest.items) == len(whole.items)
        padded = wandb_log.read(io.BytesIO(data[:cut] + bytes(500)), 0, 1 << 20)
        assert padded.next <= part.next + 500
    broken = bytearray(data)
    broken[40_000] ^= 1
    batch = wandb_log.read(io.BytesIO(broken), 0, 1 << 20)
    assert 0 < len(batch.items) < len(whole.items) and "wrong checksum" in batch.damage
    assert (
        wandb_log.read(io.BytesIO(b"SQLite format 3"), 0, 1 << 20).damage == "it does not begin as a file of wandb does"
    )


# -- MLflow -----------------------------------------------------------------------------------------------------------


def test_the_database_of_mlflow(tmp_path: Path) -> None:
    with sqlite_file.opened(unpacked("mlflow/mlflow.db.gz", tmp_path / "mlflow.db"), 5) as connection:
        assert mlflow_store.is_store(connection) and not trackio_store.is_store(connection)
        first, second = mlflow_store.runs(connection)
        some = mlflow_store.points(connection, 0, 4)
        rows = some + mlflow_store.points(connection, some[-1].position, 100)
        of_second = mlflow_store.points(connection, 0, 100, second.key)
    assert (first.name, first.project, first.status, first.parameters) == (
        "first",
        "experiment",
        "finished",
        {"lr": "0.1", "opt": "adam: x"},
    )
    assert first.tags["team"] == "vision" and first.artifacts.endswith("/artifacts") and first.started_at
    assert len(some) == 4 and [row.position for row in rows] == list(range(1, 13))
    assert [row.run for row in rows] == [first.key] * 6 + [second.key] * 6 and of_second == rows[6:]
    assert str([row.point.value for row in rows[3:6]]) == "[nan, inf, -inf]"
    assert [(row.point.name, row.point.step, row.point.value) for row in rows[:2]] == [
        ("val/loss", 0, 1),
        ("val/loss", 1, 0.5),
    ]


def test_the_folder_of_mlflow() -> None:
    found = list(mlflow_store.file_runs(TRACKERS / "mlruns" / "mlruns"))
    assert sorted((run.name, run.project, run.status, run.parameters["opt"]) for _, run in found) == [
        ("first", "experiment", "finished", "adam: x"),
        ("second", "experiment", "finished", "adam: x"),
    ]
    with (found[0][0] / "metrics" / "val" / "loss").open("rb") as file:
        batch = mlflow_store.read_metric(file, "val/loss", 0, 1 << 20)
    assert [(point.name, point.step, point.value) for point in batch.items] == [
        ("val/loss", n, 1 / (n + 1)) for n in range(3)
    ]
    lines = b"1796076474272 0.5 1\nno metric\n1796076474272 nan 2\n179607"
    batch = mlflow_store.read_metric(io.BytesIO(lines), "loss", 0, 1 << 20)
    assert ([point.step for point in batch.items], batch.next) == ([1, 2], len(lines) - 6)
    assert batch.damage == "the line b'no metric' is none of a metric"


# -- Trackio ----------------------------------------------------------------------------------------------------------


def test_the_database_of_trackio(tmp_path: Path) -> None:
    path = unpacked("trackio/project.db.gz", tmp_path / "project.db")
    with sqlite_file.opened(path, 5) as connection:
        assert trackio_store.is_store(connection) and not mlflow_store.is_store(connection)
        (run,) = trackio_store.runs(connection)
        rows = trackio_store.points(connection, 0, 100, run.key)
    assert (run.name, run.parameters) == ("first", {"lr": "0.1", "opt": "adam"})
    assert run.started_at and run.ended_at and run.started_at <= run.ended_at
    assert [row.points[0].step for row in rows] == [0, 1, 2, 10]
    values = {point.name: point.value for point in rows[1].points}
    assert {name: value for name, value in values.items() if math.isfinite(value)} == {"loss": 0.5, "deep.a": 1}
    assert str((values["none"], values["inf"])) == "(nan, inf)"


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Path]:
    """A database in WAL mode in a folder that cannot be written to, with rows in its log only."""
    import sqlite3

    path, folder = tmp_path / "project.db", tmp_path / "sealed"
    folder.mkdir()
    with gzip.open(TRACKERS / "trackio" / "project.db.gz") as packed:
        path.write_bytes(packed.read())
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute(
        "INSERT INTO metrics SELECT 99, run_id, timestamp, run_name, 99, metrics, 'x', NULL FROM metrics LIMIT 1"
    )
    writer.commit()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", folder)
    writer.close()
    folder.chmod(0o555)
    yield folder / path.name
    folder.chmod(0o755)


def test_a_database_that_was_left_is_read_with_its_log(sealed: Path) -> None:
    with sqlite_file.opened(sealed, 5) as connection:
        assert trackio_store.points(connection, 90, 10)[0].position == 99
    assert sorted(path.name for path in sealed.parent.iterdir() if not path.name.endswith("-shm")) == [
        "project.db",
        "project.db-wal",
    ]


def test_a_database_that_is_none_or_never_answers(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "no.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(sqlite_file.Unreadable, match="not a database") as raised, sqlite_file.opened(path, 5):
        pass
    assert raised.value.is_damaged
    path.unlink()
    with sqlite3.connect(path) as writer:
        writer.execute(
            "CREATE VIEW metrics AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT x FROM n"
        )
    with pytest.raises(sqlite_file.Unreadable, match="interrupted"), sqlite_file.opened(path, 0.1) as connection:
        connection.execute("SELECT count(*) FROM metrics").fetchall()


# -- Lightning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
def test_a_pipe_in_the_place_of_a_database_or_beside_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE some (thing)")
    beside = Path(f"{path}{suffix}")
    beside.unlink(missing_ok=True)
    os.mkfifo(beside)
    refused = pytest.raises(sqlite_file.Unreadable, match=f"^{beside.name} is not a regular file$")
    with refused as raised, sqlite_file.opened(path, 5):
        pass
    assert raised.value.is_damaged


def test_the_csv_log_of_lightning() -> None:
    with next((TRACKERS / "lightning").rglob("metrics.csv")).open("rb") as file:
        names, start = csv_log.columns(file)
        rows = csv_log.read(file, names, start, 1 << 20).items
    assert [[point[:3] for point in row] for row in rows[:3]] == [[("a", step, step / 2)] for step in range(3)]
    assert str([point[:3] for point in rows[3]]) == "[('a', 3, nan), ('b', 3, 2.0)]"
    data = b"epoch,step,loss\n0,1,0.5\n0,2,\n1,3,nan\n1,4,0."
    names, start = csv_log.columns(io.BytesIO(data))
    batch = csv_log.read(io.BytesIO(data), names, start, 1 << 20)
    assert [[point[:2] for point in row] for row in batch.items] == [
        [("epoch", 1), ("loss", 1)],
        [("epoch", 2)],
        [("epoch", 3), ("loss", 3)],
    ]
    assert batch.items[0][1] == Point("loss", 1, 0.5, 0.0) and (batch.next, batch.damage) == (len(data) - 6, "")
    assert csv_log.columns(io.BytesIO(b"name,price\n")) == ([], 11)
    assert csv_log.columns(io.BytesIO(b"step,lo")) == ([], 0)
    assert csv_log.read(io.BytesIO(b"1,2\n"), ["step", "a", "b"], 0, 100).damage == "the row '1,2' cannot be read"


def test_a_row_that_is_too_long_is_passed_over() -> None:
    start = len("step,loss\n")
    file = io.BytesIO(b"step,loss\n" + b"1," + b"1" * 300 + b"\n2,0.5\n")
    batch = csv_log.read(file, ["step", "loss"], start, 100)
    assert batch.items == [[]] and batch.more and "has more than 100 bytes and was passed over" in batch.damage
    assert csv_log.read(file, ["step", "loss"], batch.next, 100).items == [[Point("loss", 2, 0.5, 0.0)]]
    half = io.BytesIO(b"step,loss\n" + b"1," + b"1" * 300)
    assert csv_log.read(half, ["step", "loss"], start, 100) == Batch([], start)


def test_a_message_of_very_many_fields_is_passed_over() -> None:
    data = (b"\x2a\x7c" + b"\x10\0" * 62) * 4000
    head = struct.pack("<Q", len(data))
    frame = head + struct.pack("<I", masked(head)) + data + bytes(4)
    batch = tfevents.read(io.BytesIO(frame), 0, 1 << 20)
    assert batch.items == [] and batch.next == len(frame) and "holds no event" in batch.damage
