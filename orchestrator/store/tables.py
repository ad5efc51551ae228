"""The tables of the store. Migrations in `migrations/` make them; a test compares both."""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    event,
    text,
)

HEAD = "0009"
"""The newest migration. A test compares it with Alembic's."""

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
    Column("cores", Text, nullable=False, default="[]", server_default=text("'[]'")),
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
    Column("project", ForeignKey("projects.id")),
    Column("archived", Boolean, nullable=False, default=False, server_default=text("0")),
    Column("fingerprint", String),
    Column("rerun_of", Integer),
    Column("wish_reason", String),
    Column("wish_detail", Text, nullable=False, default="", server_default=text("''")),
    Column("not_before", Float),
    Column("outputs_removed_at", Float),
    Column("archived_at", Float),
    Index("runs_state", "state", "number"),
    Index("runs_name", "name", "number"),
    Index("runs_held", "number", sqlite_where=text("held")),
    Index("runs_paused", "not_before", sqlite_where=text("not_before IS NOT NULL")),
    Index("runs_project", "project", "number"),
    Index("runs_archived", "archived", "number"),
    Index("runs_machine_type", "machine_type", "number"),
    Index("runs_created", "created_at"),
    Index("runs_duration", "duration_s", "number"),
    Index("runs_fingerprint", "fingerprint", "number", sqlite_where=text("state = 'complete' AND NOT archived")),
    sqlite_autoincrement=True,
)

casts = Table(
    "casts",
    metadata,
    Column("key", String, primary_key=True),
    Column("noun", String, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Index("casts_at", "at"),
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

imports = Table(
    "imports",
    metadata,
    Column("origin", String, primary_key=True),
    Column("run", ForeignKey("runs.number"), nullable=False),
    Column("tracker", String, nullable=False),
    Column("project", String, nullable=False),
    Column("path", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("imports_run", "run", unique=True),
)

RESUMED = -1
"""The position of the folder that a run begins with (`spell resume`): it is copied, and not among the run's mounts."""

SHARED = "size >= 4096 AND sha256 <> ''"
"""Artifacts that may share their bytes. A query must use exactly this text, or SQLite does not use the index."""

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
    Index("artifacts_content", "sha256", "run", sqlite_where=text(SHARED)),
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
    Index("metrics_sent", "run"),
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

attempts = Table(
    "attempts",
    metadata,
    Column("run", ForeignKey("runs.number"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("duration_s", Float),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("reason", String, nullable=False),
    Column("message", Text, nullable=False, default=""),
)

metric_summaries = Table(
    "metric_summaries",
    metadata,
    Column("run", ForeignKey("runs.number"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("last", Float, nullable=False),
    Column("least", Float, nullable=False),
    Column("most", Float, nullable=False),
    Column("total", Float, nullable=False),
    Column("source", String, nullable=False, default="", server_default=text("''")),
    Index("metric_summaries_last", "name", "last", "run"),
)

tracker_sources = Table(
    "tracker_sources",
    metadata,
    Column("run", ForeignKey("runs.number"), primary_key=True),
    Column("source", String, primary_key=True),
    Column("prefix", String, nullable=False),
    Column("counts", Text, nullable=False, default="{}"),
    Column("attempt", Integer, nullable=False),
)

tracker_files = Table(
    "tracker_files",
    metadata,
    Column("run", ForeignKey("runs.number"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("inode", Integer, nullable=False),
    Column("position", Integer, nullable=False),
)

logged_parameters = Table(
    "logged_parameters",
    metadata,
    Column("run", ForeignKey("runs.number"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("value", Text, nullable=False),
    Column("source", String, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(collation="NOCASE"), nullable=False, unique=True),
    Column("description", Text, nullable=False, default=""),
    Column("archived", Boolean, nullable=False, default=False),
    Column("created_at", Float, nullable=False),
)

links = Table(
    "links",
    metadata,
    Column("alias", String, primary_key=True),
    Column("resource", Text, nullable=False),
    Column("source_run", Integer),
    Column("created_at", Float, nullable=False),
    Index("links_source", "source_run"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("name", String, primary_key=True),
    Column("tree", String, nullable=False),
    Column("count", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # encrypted
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.number"), nullable=False),
    Column("url", Text, nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("next_at", Float, nullable=False),
    Column("done", Boolean, nullable=False, default=False),
    Column("answer", Text, nullable=False, default=""),
    Index("notifications_open", "next_at", sqlite_where=text("NOT done")),
    Index("notifications_run", "run"),
)

searches = Table(
    "searches",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False),
    Column("wish", String),
    Column("spec", Text, nullable=False),
    Column("space", Text, nullable=False),
    Column("settings", Text, nullable=False),
    Column("message", Text, nullable=False, default=""),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    Index("searches_state", "state"),
    sqlite_autoincrement=True,
)

trials = Table(
    "trials",
    metadata,
    Column("search", ForeignKey("searches.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("params", Text, nullable=False),
    Column("run", ForeignKey("runs.number")),
    Column("state", String, nullable=False),
    Column("value", Float),
    Column("message", Text, nullable=False, default=""),
    Index("trials_run", "run"),
)

workflows = Table(
    "workflows",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("state", String, nullable=False),
    Column("wish", String),
    Column("reuse", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    Index("workflows_state", "state"),
    Index("workflows_name", "name", "id"),
    sqlite_autoincrement=True,
)

steps = Table(
    "steps",
    metadata,
    Column("workflow", ForeignKey("workflows.id"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    Column("needs", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("run", ForeignKey("runs.number")),
    Column("reused", Boolean, nullable=False, default=False),
    Column("message", Text, nullable=False, default=""),
    Index("steps_run", "run"),
)

SEARCHED = (
    (
        "CREATE VIRTUAL TABLE runs_text USING fts5("
        "command, description, content='runs', content_rowid='number', tokenize='trigram')"
    ),
    (
        "CREATE TRIGGER runs_text_insert AFTER INSERT ON runs BEGIN "
        "INSERT INTO runs_text(rowid, command, description) VALUES (new.number, new.command, new.description); END"
    ),
    (
        "CREATE TRIGGER runs_text_update AFTER UPDATE OF command, description ON runs BEGIN "
        "INSERT INTO runs_text(runs_text, rowid, command, description) "
        "VALUES ('delete', old.number, old.command, old.description); "
        "INSERT INTO runs_text(rowid, command, description) VALUES (new.number, new.command, new.description); END"
    ),
)
"""The text index of commands and descriptions, and the triggers that update it. https://sqlite.org/fts5.html"""
for _statement in SEARCHED:
    event.listen(metadata, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
