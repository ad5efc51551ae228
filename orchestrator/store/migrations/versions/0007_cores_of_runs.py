"""Which cores a run is held to."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """From 0006."""
    op.execute("ALTER TABLE runs ADD COLUMN cores TEXT NOT NULL DEFAULT '[]'")
