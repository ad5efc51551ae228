"""Since when runs are archived; metrics of one run in the order in which they were sent."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """From 0004."""
    op.execute("ALTER TABLE runs ADD COLUMN archived_at FLOAT")
    op.execute("CREATE INDEX metrics_sent ON metrics (run)")
