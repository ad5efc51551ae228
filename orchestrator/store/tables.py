"""The tables of the store. Migrations in `migrations/` make them; a test compares both."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text, text

HEAD = "0003"
"""The newest migration; a test holds it to what Alembic says."""

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("name", String, nullable=False, default=""),
    Column("state", String, nullable=False),
    Column("wish", String),
    Column("fence", Integer, nullable=False, default=0),
    Column("attempt", Integer, nullable=False, default=0),
    Column("spec", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("executor", String, nullable=False),
    Column("machine_type", String, nullable=False),
    Column("cpus", Float, nullable=False),
    Column("memory_bytes", Integer),
    Column("gpus_wanted", Integer, nullable=False, default=0),
    Column("gpus", Text, nullable=False, default="[]"),
    Column("held", Boolean, nullable=False, default=False, server_default=text("0")),
    Column("repository", String, nullable=False, default=""),
    Column("commit", String, nullable=False, default=""),
    Column("dirty", Boolean, nullable=False, default=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("duration_s", Float),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("reason", String),
    Column("message", Text, nullable=False, default=""),
    Column("image", String),
    Column("environment", String),
    Column("python", String, nullable=False, default=""),
    Column("packages", Text, nullable=False, default="[]"),
    Column("cpu_time_s", Float),
    Column("max_rss_bytes", Integer),
    Column("outputs_count", Integer, nullable=False, default=0),
    Column("outputs_bytes", Integer, nullable=False, default=0),
    Column("metrics_offset", Integer, nullable=False, default=0),
    Index("runs_state", "state", "number"),
    Index("runs_name", "name", "number"),
    Index("runs_held", "number", sqlite_where=text("held")),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.number"), nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False, default=""),
    Column("text", Text, nullable=False, default=""),
    Index("events_run", "run", "id"),
    sqlite_autoincrement=True,
)

mounts = Table(
    "mounts",
    metadata,
    Column("run", ForeignKey("runs.number"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("resource", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("source_run", Integer),
    Index("mounts_source", "source_run"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("run", ForeignKey("runs.number"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("size", Integer, nullable=False),
    Column("mode", String, nullable=False),
    Column("sha256", String),
    Column("note", Text, nullable=False, default=""),
    Index("artifacts_unhashed", "run", sqlite_where=text("sha256 IS NULL AND note = ''")),
)

metrics = Table(
    "metrics",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.number"), nullable=False),
    Column("name", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("value", Float, nullable=False),
    Column("at", Float, nullable=False),
    Index("metrics_run", "run", "name", "step"),
    sqlite_autoincrement=True,
)

samples = Table(
    "samples",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.number"), nullable=False),
    Column("at", Float, nullable=False),
    Column("cpu_time_s", Float, nullable=False),
    Column("memory_bytes", Integer, nullable=False),
    Column("processes", Integer, nullable=False),
    Column("gpus", Text, nullable=False, default="[]"),
    Index("samples_run", "run", "at"),
)

labels = Table(
    "labels",
    metadata,
    Column("run", ForeignKey("runs.number"), primary_key=True),
    Column("label", String, primary_key=True),
    Index("labels_label", "label", "run"),
)
