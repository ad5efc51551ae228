"""Reads the wire format of Protocol Buffers: https://protobuf.dev/programming-guides/encoding."""

from __future__ import annotations

import threading
from collections.abc import Iterator

_MOST_FIELDS = 200_000
_left = threading.local()
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def begin() -> None:
    """Begin with a record: its fields, and those of the messages within it, are counted together."""
    _left.fields = _MOST_FIELDS


def fields(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield the fields of a message, in their order: number, wire type, integer, start, end.

    A varint is `integer`; the other wire types are the bytes from `start` to `end`.

    Raises:
        ValueError: when it is no message, or has so many fields that to read them would take long.
    """
    position, end = 0, len(data)
    while position < end:
        _left.fields = left = getattr(_left, "fields", _MOST_FIELDS) - 1
        if left < 0:
            raise ValueError(f"a record has more than {_MOST_FIELDS} fields")
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        integer = 0
        start = position
        if wire == VARINT:
            integer, position = _varint(data, position)
        elif wire == BYTES:
            size, start = _varint(data, position)
            position = start + size
        elif wire == FIXED32:
            position += 4
        elif wire == FIXED64:
            position += 8
        else:
            raise ValueError(f"unknown wire type {wire}")
        if position > end:
            raise ValueError("a field ends behind its message")
        yield number, wire, integer, start, position


def signed(integer: int) -> int:
    """Return a varint as a signed number of 64 bits."""
    integer &= (1 << 64) - 1
    return integer - (1 << 64) if integer >> 63 else integer


def text(data: bytes) -> str:
    """Return a field as text."""
    return data.decode("utf-8", "replace")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    try:
        byte = data[position]
        if byte < 0x80:
            return byte, position + 1
        found, shift = byte & 0x7F, 7
        while shift < 70:
            position += 1
            byte = data[position]
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found, position + 1
            shift += 7
    except IndexError:
        raise ValueError("a number ends behind its message") from None
    raise ValueError("a number is longer than 64 bits")
