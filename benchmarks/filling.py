"""Fills a store with many runs, fast."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

_CACHE_KIB = 1 << 20
_BATCH = 100_000


def fill(database: Path, count: int, own: Mapping[str, str]) -> None:
    """Copy the first run in the store until it has `count`. The triggers of the store are dropped meanwhile.

    Args:
        database: of a home whose run 1 has ended.
        count: number of runs, with the first.
        own: SQL expressions of columns that are not copied, by column; `i` counts from 1.
    """
    with sqlite3.connect(database, timeout=60, isolation_level=None) as store:
        store.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        columns = [row[1] for row in store.execute("PRAGMA table_info(runs)") if row[1] != "number"]
        triggers = store.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        names = ", ".join(f'"{name}"' for name in columns)
        values = ", ".join(own.get(name, f'runs."{name}"') for name in columns)
        store.execute("BEGIN IMMEDIATE")
        for name, _ in triggers:
            store.execute(f"DROP TRIGGER {name}")
        for first in range(1, count, _BATCH):
            last = min(first + _BATCH, count) - 1
            store.execute(
                f"WITH RECURSIVE counted(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM counted WHERE i < {last}) "
                f"INSERT INTO runs ({names}) SELECT {values} FROM counted CROSS JOIN runs WHERE number = 1"
            )
        for _, sql in triggers:
            store.execute(sql)
        store.execute("INSERT INTO runs_text(runs_text) VALUES ('rebuild')")
        store.execute("COMMIT")
