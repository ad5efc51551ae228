"""Where imported runs came from."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """From 0008."""
    op.execute(
        "CREATE TABLE imports (origin VARCHAR NOT NULL, run INTEGER NOT NULL, tracker VARCHAR NOT NULL, "
        "project VARCHAR NOT NULL, path TEXT NOT NULL, at FLOAT NOT NULL, PRIMARY KEY (origin), "
        "FOREIGN KEY(run) REFERENCES runs (number))"
    )
    op.execute("CREATE UNIQUE INDEX imports_run ON imports (run)")
