"""Whether a run still holds its machine, whatever its state; and the image that it ran in."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("runs", sa.Column("held", sa.Boolean, nullable=False, server_default=sa.text("0")))
    op.add_column("runs", sa.Column("image", sa.String))
    op.execute("UPDATE runs SET held = 1 WHERE state IN ('building', 'mounting', 'running')")
    op.create_index("runs_held", "runs", ["number"], sqlite_where=sa.text("held"))
