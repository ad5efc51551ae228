"""What the API answers: frozen records, the same on both sides of the wire.

`--json` prints these, one field per attribute, in this order; a field may be added, none is renamed or removed.
Times are seconds since the epoch (UTC); sizes are bytes; an unknown value is null.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

API_VERSION = 2

T = TypeVar("T")


@functools.cache
def _fields(kind: type) -> frozenset[str]:
    return frozenset(item.name for item in dataclasses.fields(kind))


def from_wire(kind: type[T], body: Mapping[str, Any]) -> T:
    """The record of this kind in a JSON object; fields that only a newer server knows are left out."""
    known = _fields(kind)  # type: ignore[arg-type]
    return kind(**{key: value for key, value in body.items() if key in known})
