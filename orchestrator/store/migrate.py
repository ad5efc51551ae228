"""Migrates a store of an older version. Separate from `database`, because Alembic takes a third of a second to load."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event

from orchestrator.errors import HomeUnusable

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(path: Path, version: str | None) -> None:
    """Run every migration after `version` (None: all, on an empty file), in one transaction.

    Raises:
        HomeUnusable: when `version` is unknown, because a newer spell made it.
    """
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise HomeUnusable(
            f"The store {path} was made by a newer version of spell (store version {version}).",
            "Upgrade: pip install --upgrade spell-orchestrator",
        )
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _no_own_transactions)
    event.listen(engine, "begin", _begin)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def _no_own_transactions(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # Python's default would leave each CREATE TABLE outside of any transaction


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
