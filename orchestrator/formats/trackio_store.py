"""Reads the databases of Trackio, without it: `PROJECT.db` with the tables metrics and configs, one row a call of `log`.

Values are JSON, in which NaN and infinite numbers are the texts "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import datetime as dt
import json
import math
import sqlite3
from typing import Any, NamedTuple

from orchestrator.formats.records import Point, TrackedRun, as_text, numbers
from orchestrator.formats.sqlite_file import tables

SUFFIX = ".db"
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Row(NamedTuple):
    """The values of one call of `log`, with their position and the key of their run."""

    position: int
    run: str
    points: list[Point]


def is_store(connection: sqlite3.Connection) -> bool:
    """Whether a database is one of Trackio's."""
    found = tables(connection)
    return {"run_name", "step", "metrics"} <= found.get("metrics", set()) and "config" in found.get("configs", set())


def runs(connection: sqlite3.Connection, *, with_rows: bool = True) -> list[TrackedRun]:
    """Return all runs of a database, in the order in which they began. Trackio does not record whether one has ended.

    Old databases know their runs by name only.

    Args:
        with_rows: whether to look through all rows: for the time of the last one, and for runs without a configuration.
    """
    key = _key(connection)
    query = (
        f"SELECT {key} AS key, run_name, min(timestamp) AS first, max(timestamp) AS last FROM metrics GROUP BY {key}"  # noqa: S608 - ours
    )
    seen = {str(row["key"]): row for row in connection.execute(query)} if with_rows else {}
    configs = {str(row[key]): row for row in connection.execute("SELECT * FROM configs ORDER BY id")}
    names = {str(row["key"]): str(row["run_name"]) for row in seen.values()}
    names |= {name: str(row["run_name"]) for name, row in configs.items()}
    found = [_run(name, names[name], seen.get(name), configs.get(name)) for name in names]
    return sorted(found, key=lambda run: run.started_at or 0.0)


def _run(key: str, name: str, row: sqlite3.Row | None, config: sqlite3.Row | None) -> TrackedRun:
    words = _json(config["config"]) if config else {}
    created = words.get("_Created") or (config["created_at"] if config else None)
    return TrackedRun(
        key=key,
        name=name,
        started_at=seconds(created) or (seconds(row["first"]) if row else None),
        ended_at=seconds(row["last"]) if row else None,
        parameters={name: as_text(value) for name, value in words.items() if not name.startswith("_")},
        tags={"group": str(words["_Group"])} if words.get("_Group") else {},
    )


def points(connection: sqlite3.Connection, after: int, limit: int, run: str = "") -> list[Row]:
    """Return the values of the next rows, of one run or of all, in the order of writing; 0 stands before the first."""
    key = _key(connection)
    wanted, values = (f"AND {key} = ? ", (run,)) if run else ("", ())
    query = f"SELECT id, {key} AS key, timestamp, step, metrics FROM metrics WHERE id > ? {wanted}ORDER BY id LIMIT ?"  # noqa: S608 - ours
    return [Row(row["id"], str(row["key"]), _points(row)) for row in connection.execute(query, (after, *values, limit))]


def _key(connection: sqlite3.Connection) -> str:
    found = tables(connection)
    return "run_id" if "run_id" in found.get("metrics", ()) and "run_id" in found.get("configs", ()) else "run_name"


def _points(row: sqlite3.Row) -> list[Point]:
    words = {
        key: _SPECIAL.get(value, value) if isinstance(value, str) else value
        for key, value in _json(row["metrics"]).items()
    }
    at = seconds(row["timestamp"]) or 0.0
    return [Point(name, int(row["step"] or 0), value, at) for name, value in numbers(words)]


def _json(value: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def seconds(stamp: object) -> float | None:
    """Return a time of the database in seconds since the epoch; one without a zone is UTC."""
    try:
        found = dt.datetime.fromisoformat(str(stamp))
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()
