"""Packs many small blobs into one request, because a request for each would take longer than their bytes.

Format: for each blob its SHA-256 (32 bytes), its size (8 bytes, big endian), and its bytes; nothing between them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import TypeVar

from orchestrator.errors import Conflict, InvalidConfig

SMALL_BYTES = 1 << 20  # bigger blobs are sent in separate requests
PACK_BYTES = 4 << 20  # a pack is sent when it holds so much
MOST_BYTES = 32 << 20  # the server refuses a bigger pack
_MOST_TOGETHER = 2000
T = TypeVar("T")
_HEAD = struct.Struct(">32sQ")


def grouped(blobs: Iterable[tuple[T, int]], *, first: int = _MOST_TOGETHER) -> Iterator[list[T]]:
    """Group small blobs (given as any object, with their sizes in bytes) into packs.

    Args:
        first: the most blobs of the first pack; each pack may have twice as many as the one before, up to the limit.
    """
    group: list[T] = []
    total, most = 0, first
    for blob, size in blobs:
        group.append(blob)
        total += size
        if total >= PACK_BYTES or len(group) == most:
            yield group
            group, total, most = [], 0, min(2 * most, _MOST_TOGETHER)
    if group:
        yield group


def pack(blobs: Iterable[tuple[str, bytes]]) -> bytes:
    """Return one pack of these blobs: digests (SHA-256, hex) and bytes."""
    return b"".join(part for digest, data in blobs for part in (_HEAD.pack(bytes.fromhex(digest), len(data)), data))


def unpack(body: bytes) -> Iterator[tuple[str, memoryview]]:
    """Yield the blobs of a pack, each checked against its digest.

    Raises:
        InvalidConfig: when the pack is cut off.
        Conflict: when the bytes of a blob do not match its digest.
    """
    view, place = memoryview(body), 0
    while place < len(view):
        data = place + _HEAD.size
        if data > len(view):
            raise InvalidConfig("A pack is cut off.")
        raw, size = _HEAD.unpack_from(view, place)
        place = data + size
        if place > len(view):
            raise InvalidConfig("A pack is cut off.")
        blob = view[data:place]
        if hashlib.sha256(blob).digest() != raw:
            raise Conflict("A file changed while it was sent.", "Try again.")
        yield raw.hex(), blob
