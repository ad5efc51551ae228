"""Bringing a store of an older version up to date. Apart from `database`, because Alembic takes a third of a second to load."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from orchestrator.errors import HomeUnusable

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(path: Path, version: str | None) -> None:
    """Run every migration after `version` (None: all, on an empty file), in one transaction.

    Raises:
        HomeUnusable: when `version` is not one of ours: a newer spell made it.
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
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
