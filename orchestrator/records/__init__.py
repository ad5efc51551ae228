"""The answers of the API: frozen records, the same in client and server.

`--json` prints these, one field per attribute, in this order; a field may be added, none is renamed or removed.
Times are seconds since the epoch (UTC); sizes are bytes; an unknown value is null.

casts        a run that was cast
plans        what a cast would do
run_summary  a run in a list
runs         a run, its attempts, its usage
events       an event of a run
position     the position of a follower
logs         times of a log
metrics      metrics
files        outputs, and entries of folders
uploads      uploads
secrets      secrets, without values
workflows    workflows and their steps
searches     searches and their trials
projects     projects
links        links
imports      runs of other trackers
ports        ports that runs listen on
compare      differences, lineage and verification of runs
images       baked images
environments  what a run would get
machines     machine types, the server, and its checks
gc           what gc removed
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

API_VERSION = 4

T = TypeVar("T")


@functools.cache
def _fields(kind: type) -> frozenset[str]:
    return frozenset(item.name for item in dataclasses.fields(kind))


def from_wire(kind: type[T], body: Mapping[str, Any]) -> T:
    """The record of this kind in a JSON object; fields that only a newer server knows are left out."""
    known = _fields(kind)  # type: ignore[arg-type]
    return kind(**{key: value for key, value in body.items() if key in known})
