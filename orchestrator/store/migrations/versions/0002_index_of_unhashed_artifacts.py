"""An index of the artifacts whose hash is not known yet: they are looked for after every run."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("artifacts_unhashed", "artifacts", ["run"], sqlite_where=sa.text("sha256 IS NULL AND note = ''"))
