"""Reads event files of TensorBoard, without TensorBoard: TFRecord frames, and in each frame one message `Event`.

A frame: length (8 bytes, little-endian), masked CRC-32C of the length, data, masked CRC-32C of the data. Fields:
tensorboard/compat/proto/event.proto, summary.proto, tensor.proto, plugins/hparams/plugin_data.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from orchestrator.formats.checksums import masked
from orchestrator.formats.protobuf import begin, fields, signed, text
from orchestrator.formats.records import Batch, as_text

MARK = "events.out.tfevents."
"""Part of the name of every event file."""

_HEAD = struct.Struct("<QI")
_CRC_BYTES = 4
_MOST_CHECKED_BYTES = 64 << 10  # a larger frame holds pictures or histograms: its checksum would take too long
_MOST_READ_BYTES = 16 << 20  # a larger frame is passed over
_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")
_CONTENT = {1: "<f", 2: "<d", 3: "<i", 4: "<B", 5: "<h", 6: "<b", 9: "<q", 10: "<?", 17: "<H", 19: "<e", 22: "<I", 23: "<Q"}  # fmt: skip
_BFLOAT16, _HALF = 14, 19
_LONGEST_NUMBER = 10
_PLUGINS = {"scalars": "scalar", "histograms": "histogram", "images": "image", "audio": "audio", "text": "text"}


class Value(NamedTuple):
    """One value of an event.

    Attributes:
        kind: scalar, histogram, image, audio, text, hparams, or other.
        number: of a scalar.
        hparams: of the start of a session of hparams.
        pictures: encoded images (PNG, …) of an image.
    """

    tag: str
    kind: str
    number: float = 0.0
    hparams: Mapping[str, str] = {}
    pictures: tuple[bytes, ...] = ()


class Event(NamedTuple):
    """One event; `at` is its wall time. `restarts` says that a writer began anew at `step`: steps from there on are void."""

    at: float
    step: int
    values: list[Value]
    restarts: bool = False


def read(file: BinaryIO, position: int, limit_bytes: int) -> Batch[Event]:
    """Read the whole frames from a position on, about `limit_bytes` of them. A damaged frame is passed over where its end is known."""
    events: list[Event] = []
    damage, first = "", position
    file.seek(position)
    while position - first < limit_bytes:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return Batch(events, position, damage)
        length, crc = _HEAD.unpack(head)
        if masked(head[:8]) != crc:
            return Batch(events, position, f"the length of the frame at byte {position} has a wrong checksum")
        end = position + _HEAD.size + length + _CRC_BYTES
        if length > _MOST_READ_BYTES:
            if file.seek(0, 2) < end:
                return Batch(events, position, damage)
            damage = f"the frame at byte {position} has {length >> 20} MiB and was passed over"
            file.seek(end)
        else:
            data, tail = file.read(length), file.read(_CRC_BYTES)
            if len(tail) < _CRC_BYTES:
                return Batch(events, position, damage)
            event, wrong = _checked(data, tail, position)
            damage = wrong or damage
            if event:
                events.append(event)
        position = end
    return Batch(events, position, damage, more=True)


def _checked(data: bytes, tail: bytes, position: int) -> tuple[Event | None, str]:
    if len(data) <= _MOST_CHECKED_BYTES and masked(data) != int.from_bytes(tail, "little"):
        return None, f"the frame at byte {position} has a wrong checksum"
    begin()
    try:
        return _event(data), ""
    except (ValueError, struct.error):
        return None, f"the frame at byte {position} holds no event"


def _event(data: bytes) -> Event:
    at, step, restarts = 0.0, 0, False
    values: list[Value] = []
    for number, _, integer, start, end in fields(data):
        if number == 1:
            at = _DOUBLE.unpack(data[start:end])[0]
        elif number == 2:
            step = signed(integer)
        elif number == 5:
            summary = data[start:end]
            values += [_value(summary[a:b]) for place, _, _, a, b in fields(summary) if place == 1]
        elif number == 7:  # SessionLog: its status 1 is START
            log = data[start:end]
            restarts = any(place == 1 and status == 1 for place, _, status, _, _ in fields(log))
    return Event(at, step, values, restarts)


def _value(data: bytes) -> Value:
    tag, kind, number, plugin = "", "other", 0.0, ""
    tensor = content = b""
    pictures: tuple[bytes, ...] = ()
    for place, _, _, start, end in fields(data):
        if place == 1:
            tag = text(data[start:end])
        elif place == 2:
            kind, number = "scalar", _FLOAT.unpack(data[start:end])[0]
        elif place == 4:
            kind, pictures = "image", _of_image(data[start:end])
        elif place in (5, 6):
            kind = "histogram" if place == 5 else "audio"
        elif place == 8:
            tensor = data[start:end]
        elif place == 9:
            plugin, content = _metadata(data[start:end])
    if plugin == "hparams":
        return Value(tag, "hparams", hparams=_hparams(content))
    if tensor:
        return _of_tensor(tag, _PLUGINS.get(plugin, "other") if plugin else "scalar", tensor)
    return Value(tag, kind, number, pictures=pictures)


def _of_image(image: bytes) -> tuple[bytes, ...]:
    return tuple(image[start:end] for number, _, _, start, end in fields(image) if number == 4)


def _of_tensor(tag: str, kind: str, tensor: bytes) -> Value:
    if kind == "scalar":
        number = _number(tensor)
        return Value(tag, "other") if number is None else Value(tag, "scalar", number)
    if kind == "image":  # strings: width, height, then pictures
        strings = [tensor[start:end] for number, _, _, start, end in fields(tensor) if number == 8]
        return Value(tag, "image", pictures=tuple(strings[2:]))
    return Value(tag, kind)


def _number(tensor: bytes) -> float | None:
    """Return the only number of a TensorProto; None when it holds more, or something else."""
    dtype, found = 0, []
    for number, wire, integer, start, end in fields(tensor):
        if number == 1:
            dtype = integer
        elif number == 4:
            content = tensor[start:end]
            form = _CONTENT.get(dtype)
            if dtype == _BFLOAT16 and len(content) == 2:
                found.append(_FLOAT.unpack(b"\0\0" + content)[0])
            elif form and struct.calcsize(form) == len(content):
                found.append(float(struct.unpack(form, content)[0]))
            else:
                return None
        elif wire == 2 and end - start > _LONGEST_NUMBER:
            return None
        elif number in (5, 6):
            form = "<f" if number == 5 else "<d"
            found += [item for (item,) in struct.iter_unpack(form, tensor[start:end])]
        elif number in (7, 10, 11, 13, 16, 17):
            packed = [integer] if wire == 0 else _packed(tensor[start:end])
            found += [_of_half(item, dtype) if number == 13 else float(signed(item)) for item in packed]
    return found[0] if len(found) == 1 else None


def _packed(data: bytes) -> list[int]:
    found, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(value)
            value = shift = 0
    return found


def _of_half(bits: int, dtype: int) -> float:
    if dtype == _BFLOAT16:
        return float(_FLOAT.unpack(struct.pack("<I", (bits & 0xFFFF) << 16))[0])
    return float(struct.unpack("<e", struct.pack("<H", bits & 0xFFFF))[0])


def _metadata(data: bytes) -> tuple[str, bytes]:
    """Return the name of the plugin that a value is for, and what is meant for that plugin."""
    plugin, content = "", b""
    for number, _, _, start, end in fields(data):
        if number == 1:
            inner = data[start:end]
            for place, _, _, first, last in fields(inner):
                if place == 1:
                    plugin = text(inner[first:last])
                elif place == 2:
                    content = inner[first:last]
    return plugin, content


def _hparams(content: bytes) -> dict[str, str]:
    """Return the hyperparameters of a session; none when it is not the start of one."""
    found = {}
    for number, _, _, start, end in fields(content):
        if number == 3:
            session = content[start:end]
            for place, _, _, first, last in fields(session):
                if place == 1:
                    name, value = _pair(session[first:last])
                    found[name] = value
    return found


def _pair(data: bytes) -> tuple[str, str]:
    name, value = "", "null"
    for number, _, _, start, end in fields(data):
        if number == 1:
            name = text(data[start:end])
        elif number == 2:
            inner = data[start:end]
            for place, _, integer, first, last in fields(inner):
                if place == 2:
                    number_ = _DOUBLE.unpack(inner[first:last])[0]
                    value = as_text(int(number_) if number_.is_integer() and abs(number_) < 1 << 53 else number_)
                elif place == 3:
                    value = text(inner[first:last])
                elif place == 4:
                    value = as_text(bool(integer))
    return name, value
