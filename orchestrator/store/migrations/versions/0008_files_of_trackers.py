"""What runs have logged by trackers: how far their files were read, whose metric is whose, parameters."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """From 0007."""
    op.execute("ALTER TABLE metric_summaries ADD COLUMN source VARCHAR NOT NULL DEFAULT ''")
    op.execute(
        "CREATE TABLE tracker_sources (run INTEGER NOT NULL, source VARCHAR NOT NULL, prefix VARCHAR NOT NULL, "
        "counts TEXT NOT NULL, attempt INTEGER NOT NULL, PRIMARY KEY (run, source), FOREIGN KEY(run) REFERENCES runs (number))"
    )
    op.execute(
        "CREATE TABLE tracker_files (run INTEGER NOT NULL, path TEXT NOT NULL, attempt INTEGER NOT NULL, inode INTEGER NOT NULL, "
        "position INTEGER NOT NULL, PRIMARY KEY (run, path), FOREIGN KEY(run) REFERENCES runs (number))"
    )
    op.execute(
        "CREATE TABLE logged_parameters (run INTEGER NOT NULL, name VARCHAR NOT NULL, value TEXT NOT NULL, "
        "source VARCHAR NOT NULL, PRIMARY KEY (run, name), FOREIGN KEY(run) REFERENCES runs (number))"
    )
