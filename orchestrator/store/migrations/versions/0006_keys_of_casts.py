"""The keys of requests to cast, so that a request that comes twice casts once."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """From 0005."""
    op.execute(
        "CREATE TABLE casts (key VARCHAR NOT NULL, noun VARCHAR NOT NULL, number INTEGER NOT NULL, "
        "at FLOAT NOT NULL, PRIMARY KEY (key, noun))"
    )
    op.execute("CREATE INDEX casts_at ON casts (at)")
