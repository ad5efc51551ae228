"""The answers of tools: text of a bounded size. What is cut is said in the answer itself, with the call that shows the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.spec.run import to_wire

MOST_BYTES = 40_000
"""Of one answer, some 10,000 tokens: assistants put a whole answer into what they have to read again at every step."""
_LONGEST_TEXT = 4_000  # of one field: a command may hold a whole script


def record(value: Any, most_bytes: int = MOST_BYTES) -> str:
    """Return a record as JSON; texts that are too long are cut, and lists that are too long for an answer."""
    found = json.dumps(_shortened(to_wire(value)), ensure_ascii=False)
    while len(found.encode()) > most_bytes:
        smaller = _with_shorter_lists(json.loads(found))
        if smaller is None:
            return text(found, most_bytes, "")
        found = json.dumps(smaller, ensure_ascii=False)
    return found


def listing(name: str, items: Sequence[Any], rest: str, about: Mapping[str, Any] | None = None) -> str:
    """Return a list as JSON, `{"NAME": […], "cut": "…"}`.

    Args:
        rest: how to see what was cut.
        about: what else the answer says.
    """
    kept, used = [], 0
    for item in items:
        shown = _shortened(to_wire(item))
        used += len(json.dumps(shown, ensure_ascii=False).encode()) + 2
        if used > MOST_BYTES:
            break
        kept.append(shown)
    cut = {} if len(kept) == len(items) else {"cut": f"{len(kept)} of {len(items)} are shown. {rest}"}
    return json.dumps({**(about or {}), name: kept, **cut}, ensure_ascii=False)


def text(whole: str, most_bytes: int, rest: str) -> str:
    """Return a text, cut after `most_bytes`."""
    data = whole.encode()
    if len(data) <= most_bytes:
        return whole
    return f"{data[:most_bytes].decode(errors='ignore')}\n[cut: {most_bytes} of {len(data)} bytes. {rest}]"


def thinned(values: Sequence[Any], most: int) -> Sequence[Any]:
    """Return evenly chosen values, with the first and the last one."""
    if len(values) <= most:
        return values
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def slice_of(chunks: Iterator[bytes], offset: int, most_bytes: int) -> bytes:
    """Return some bytes of a stream, and read no further."""
    found, passed = bytearray(), 0
    for chunk in chunks:
        found += chunk[max(0, offset - passed) :]
        passed += len(chunk)
        if len(found) >= most_bytes:
            break
    return bytes(found[:most_bytes])


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}… [cut: {len(value)} characters]"
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return value


def _with_shorter_lists(value: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record with half of its longest list; None if no list can be shortened."""
    sizes = {name: len(json.dumps(item)) for name, item in value.items() if isinstance(item, list) and len(item) > 1}
    if not sizes:
        return None
    name = max(sizes, key=sizes.__getitem__)
    kept = value[name][: len(value[name]) // 2]
    counts = {**value.get("cut", {}), name: f"the first {len(kept)} are shown"}
    return {**value, name: kept, "cut": counts}
