"""Reads the file of an offline run of Weights & Biases, `run-ID.wandb`, without wandb: wandb 0.31 has no reader any more.

A head of 7 bytes, then the log format of LevelDB in blocks of 32 KiB (https://github.com/google/leveldb/blob/main/doc/log_format.md,
with a plain CRC-32), and in each record one message `Record` of wandb/proto/wandb_internal.proto.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from orchestrator.formats.protobuf import begin, fields, signed, text
from orchestrator.formats.records import Batch, Point, TrackedRun, as_text, numbers

SUFFIX = ".wandb"
_MAGIC = b":W&B"
_START = 7
_BLOCK = 32 << 10
_HEAD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MOST_RECORD_BYTES = 64 << 20
_KINDS = {2: "history", 3: "summary", 5: "config", 17: "run", 18: "exit"}
_OWN = ("_step", "_timestamp", "_runtime", "_wandb")


class Record(NamedTuple):
    """One record of interest: `kind` is history, summary, config, run or exit, and `words` what it says.

    Of `history`, `summary` and `config` these are values by key. A nested key is the list of its parts, joined by dots.
    """

    kind: str
    words: dict[str, Any]
    step: int = 0


def read(file: BinaryIO, position: int, limit_bytes: int) -> Batch[Record]:
    """Read the whole records from a position on, about `limit_bytes` of them."""
    if position < _START:
        file.seek(0)
        head = file.read(_START)
        if len(head) < _START:
            return Batch([], 0)
        if not head.startswith(_MAGIC):
            return Batch([], 0, "it does not begin as a file of wandb does")
        position = _START
    records: list[Record] = []
    done, damage = position, ""
    parts: list[bytes] = []
    for kind, data, end in _fragments(file, position):
        if kind is None:
            return Batch(records, done, data.decode())
        if kind in (_FULL, _FIRST):
            parts = []
        parts.append(data)
        if sum(map(len, parts)) > _MOST_RECORD_BYTES:
            return Batch(records, done, f"the record at byte {done} is too long")
        if kind in (_FULL, _LAST):
            damage = _add(records, b"".join(parts), done) or damage
            parts, done = [], end
            if done - position >= limit_bytes:
                return Batch(records, done, damage, more=True)
    return Batch(records, done, damage)


def _fragments(file: BinaryIO, position: int) -> Iterator[tuple[int | None, bytes, int]]:
    """Yield the whole fragments: kind, data, end. Kind None says by `data` what is wrong, and ends."""
    file.seek(position)
    while True:
        left = _BLOCK - position % _BLOCK
        if left < _HEAD.size:  # the rest of a block that is too short for a head
            position += left
            file.seek(position)
            left = _BLOCK
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return
        crc, length, kind = _HEAD.unpack(head)
        if not any(head):  # room that was made for what is not written yet
            return
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or length > left - _HEAD.size:
            yield None, f"at byte {position} no record begins".encode(), position
            return
        data = file.read(length)
        if len(data) < length:
            return
        if zlib.crc32(bytes([kind]) + data) != crc:
            yield None, f"the record at byte {position} has a wrong checksum".encode(), position
            return
        position += _HEAD.size + length
        yield kind, data, position


def _add(records: list[Record], data: bytes, position: int) -> str:
    begin()
    try:
        for number, _, _, start, end in fields(data):
            if kind := _KINDS.get(number):
                records.append(_record(kind, data[start:end]))
    except ValueError:
        return f"the record at byte {position} cannot be read"
    return ""


def _record(kind: str, data: bytes) -> Record:
    if kind == "run":
        return Record(kind, _run(data))
    if kind == "exit":
        codes = [signed(integer) for number, _, integer, _, _ in fields(data) if number == 1]
        return Record(kind, {"exit_code": codes[0] if codes else 0})
    words, step = {}, 0
    for number, wire, _, start, end in fields(data):
        if number == 1:
            key, value = _item(data[start:end])
            words[key] = value
        elif number == 2 and kind == "history" and wire == 2:
            inner = data[start:end]
            step = next((signed(integer) for place, _, integer, _, _ in fields(inner) if place == 1), 0)
    own = words.get("_step")
    return Record(kind, words, own if isinstance(own, int) else step)


def _item(data: bytes) -> tuple[str, Any]:
    key, nested, value = "", [], "null"
    for number, _, _, start, end in fields(data):
        if number == 1:
            key = text(data[start:end])
        elif number == 2:
            nested.append(text(data[start:end]))
        elif number == 16:
            value = text(data[start:end])
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = value
    return key or ".".join(nested), found


def _run(data: bytes) -> dict[str, Any]:
    names = {1: "run_id", 2: "entity", 3: "project", 6: "group", 7: "job_type", 8: "display_name", 9: "notes"}
    found: dict[str, Any] = {"tags": [], "config": {}}
    for number, _, integer, start, end in fields(data):
        if number in names:
            found[names[number]] = text(data[start:end])
        elif number == 10:
            found["tags"].append(text(data[start:end]))
        elif number == 4:
            config = data[start:end]
            found["config"] |= dict(_item(config[a:b]) for place, _, _, a, b in fields(config) if place == 1)
        elif number == 14:
            found["starting_step"] = signed(integer)
        elif number == 17:
            found["started_at"] = _time(data[start:end])
    return found


def _time(data: bytes) -> float:
    parts = {number: integer for number, _, integer, _, _ in fields(data)}
    return parts.get(1, 0) + parts.get(2, 0) / 1e9


def points(record: Record) -> list[Point]:
    """Return the numbers of a history record. Pictures, tables and texts are passed over."""
    at = record.words.get("_timestamp")
    moment = float(at) if isinstance(at, int | float) else 0.0
    shown = {key: value for key, value in record.words.items() if key not in _OWN and not key.startswith("_wandb.")}
    return [Point(name, record.step, value, moment) for name, value in numbers(shown)]


@dataclass(slots=True)
class RunState:
    """Gathers what the records of one file say about its run."""

    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    last_at: float | None = None
    exit_code: int | None = None

    def add(self, record: Record) -> None:
        """Take one record in."""
        if record.kind == "run":
            self.run |= record.words
            self.config |= record.words["config"]
        elif record.kind == "config":
            self.config |= record.words
        elif record.kind == "exit":
            self.exit_code = record.words["exit_code"]
        elif record.kind == "history" and isinstance(at := record.words.get("_timestamp"), int | float):
            self.last_at = float(at)

    def result(self) -> TrackedRun:
        """Return the run, as far as it was read."""
        run, code = self.run, self.exit_code
        return TrackedRun(
            key=run.get("run_id", ""),
            name=run.get("display_name", ""),
            project=run.get("project", ""),
            status="running" if code is None else "finished" if code == 0 else "failed",
            started_at=run.get("started_at"),
            ended_at=self.last_at if code is not None else None,
            parameters={key: as_text(value) for key, value in self.config.items() if not key.startswith("_wandb")},
            tags=dict.fromkeys(run.get("tags", ()), ""),
        )
