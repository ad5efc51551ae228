"""Which cores a run is held to."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """From 0005."""
    op.execute("ALTER TABLE runs ADD COLUMN cores TEXT NOT NULL DEFAULT '[]'")
