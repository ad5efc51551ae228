"""Reads `metrics.csv` of Lightning's CSVLogger: a column for each metric, with `step` and `epoch` among them.

The file is appended to; when a new metric comes, it is written anew with one more column and the same rows.
"""

from __future__ import annotations

import csv
import io
from typing import BinaryIO

from orchestrator.formats.records import Batch, Point

NAME = "metrics.csv"
_STEP = "step"
_LONGEST_HEAD = 1 << 20


def columns(file: BinaryIO) -> tuple[list[str], int]:
    """Return the columns of the file, and where its rows begin: 0 for not yet. It has no columns when it is another's."""
    file.seek(0)
    line = file.readline(_LONGEST_HEAD)
    if not line.endswith(b"\n"):
        return [], 0
    found = next(csv.reader([line.decode("utf-8", "replace")]), [])
    return found if _STEP in found else [], len(line)


def read(file: BinaryIO, names: list[str], position: int, limit_bytes: int) -> Batch[list[Point]]:
    """Read the whole rows from a position on: a list of points for each row, without times.

    A row of more than `limit_bytes` is passed over, as a row without points.
    """
    file.seek(position)
    block = file.read(limit_bytes)
    whole = block[: block.rfind(b"\n") + 1]
    if len(block) == limit_bytes and not whole:
        return _passed_over(file, position, limit_bytes)
    rows, damage = [], ""
    for cells in csv.reader(io.StringIO(whole.decode("utf-8", "replace"), newline="")):
        try:
            words = dict(zip(names, cells, strict=True))
            step = int(float(words.pop(_STEP)))
            rows.append([Point(name, step, float(cell), 0.0) for name, cell in words.items() if cell])
        except (ValueError, OverflowError):
            rows.append([])
            damage = f"the row {','.join(cells)[:80]!r} cannot be read"
    return Batch(rows, position + len(whole), damage, more=len(block) == limit_bytes and bool(whole))


def _passed_over(file: BinaryIO, position: int, limit_bytes: int) -> Batch[list[Point]]:
    size = limit_bytes
    while block := file.readline(limit_bytes):
        size += len(block)
        if block.endswith(b"\n"):
            damage = f"the row at byte {position} has more than {limit_bytes} bytes and was passed over"
            return Batch([[]], position + size, damage, more=True)
    return Batch([], position)
