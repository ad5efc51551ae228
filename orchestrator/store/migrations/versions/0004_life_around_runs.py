"""Projects, links, uploads, secrets, attempts, searches, workflows, notifications; what runs are searched and sorted by."""

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    (
        'CREATE TABLE projects (id INTEGER NOT NULL, name VARCHAR COLLATE "NOCASE" NOT NULL, description TEXT '
        "NOT NULL, archived BOOLEAN NOT NULL, created_at FLOAT NOT NULL, PRIMARY KEY (id), UNIQUE (name))"
    ),
    "ALTER TABLE runs ADD COLUMN project INTEGER REFERENCES projects (id)",
    "ALTER TABLE runs ADD COLUMN archived BOOLEAN NOT NULL DEFAULT 0",
    "ALTER TABLE runs ADD COLUMN fingerprint VARCHAR",
    "ALTER TABLE runs ADD COLUMN rerun_of INTEGER",
    "ALTER TABLE runs ADD COLUMN wish_reason VARCHAR",
    "ALTER TABLE runs ADD COLUMN wish_detail TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE runs ADD COLUMN not_before FLOAT",
    "ALTER TABLE runs ADD COLUMN outputs_removed_at FLOAT",
    "CREATE INDEX artifacts_content ON artifacts (sha256, run) WHERE size >= 4096 AND sha256 <> ''",
    (
        "CREATE TABLE links (alias VARCHAR NOT NULL, resource TEXT NOT NULL, source_run INTEGER, created_at "
        "FLOAT NOT NULL, PRIMARY KEY (alias))"
    ),
    "CREATE INDEX links_source ON links (source_run)",
    (
        "CREATE TABLE uploads (name VARCHAR NOT NULL, tree VARCHAR NOT NULL, count INTEGER NOT NULL, bytes "
        "INTEGER NOT NULL, created_at FLOAT NOT NULL, PRIMARY KEY (name))"
    ),
    (
        "CREATE TABLE secrets (name VARCHAR NOT NULL, sealed BLOB NOT NULL, created_at FLOAT NOT NULL, "
        "updated_at FLOAT NOT NULL, PRIMARY KEY (name))"
    ),
    (
        "CREATE TABLE attempts (run INTEGER NOT NULL, number INTEGER NOT NULL, started_at FLOAT, ended_at "
        "FLOAT, duration_s FLOAT, exit_code INTEGER, signal INTEGER, reason VARCHAR NOT NULL, message TEXT "
        "NOT NULL, PRIMARY KEY (run, number), FOREIGN KEY(run) REFERENCES runs (number))"
    ),
    (
        "CREATE TABLE metric_summaries (run INTEGER NOT NULL, name VARCHAR NOT NULL, count INTEGER NOT NULL, "
        "step INTEGER NOT NULL, last FLOAT NOT NULL, least FLOAT NOT NULL, most FLOAT NOT NULL, total FLOAT "
        "NOT NULL, PRIMARY KEY (run, name), FOREIGN KEY(run) REFERENCES runs (number))"
    ),
    "CREATE INDEX metric_summaries_last ON metric_summaries (name, last, run)",
    (
        "CREATE TABLE notifications (id INTEGER NOT NULL, run INTEGER NOT NULL, url TEXT NOT NULL, tries "
        "INTEGER NOT NULL, next_at FLOAT NOT NULL, done BOOLEAN NOT NULL, answer TEXT NOT NULL, PRIMARY KEY "
        "(id), FOREIGN KEY(run) REFERENCES runs (number))"
    ),
    "CREATE INDEX notifications_open ON notifications (next_at) WHERE NOT done",
    "CREATE INDEX notifications_run ON notifications (run)",
    (
        "CREATE TABLE searches (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, kind VARCHAR NOT NULL, state "
        "VARCHAR NOT NULL, wish VARCHAR, spec TEXT NOT NULL, space TEXT NOT NULL, settings TEXT NOT NULL, "
        "message TEXT NOT NULL, created_at FLOAT NOT NULL, ended_at FLOAT)"
    ),
    "CREATE INDEX searches_state ON searches (state)",
    (
        "CREATE TABLE trials (search INTEGER NOT NULL, number INTEGER NOT NULL, params TEXT NOT NULL, run "
        "INTEGER, state VARCHAR NOT NULL, value FLOAT, message TEXT NOT NULL, PRIMARY KEY (search, number), "
        "FOREIGN KEY(search) REFERENCES searches (id), FOREIGN KEY(run) REFERENCES runs (number))"
    ),
    "CREATE INDEX trials_run ON trials (run)",
    (
        "CREATE TABLE workflows (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, name VARCHAR NOT NULL, state "
        "VARCHAR NOT NULL, wish VARCHAR, reuse BOOLEAN NOT NULL, created_at FLOAT NOT NULL, ended_at FLOAT)"
    ),
    "CREATE INDEX workflows_state ON workflows (state)",
    "CREATE INDEX workflows_name ON workflows (name, id)",
    (
        "CREATE TABLE steps (workflow INTEGER NOT NULL, name VARCHAR NOT NULL, position INTEGER NOT NULL, "
        "spec TEXT NOT NULL, needs TEXT NOT NULL, state VARCHAR NOT NULL, run INTEGER, reused BOOLEAN NOT "
        "NULL, message TEXT NOT NULL, PRIMARY KEY (workflow, name), FOREIGN KEY(workflow) REFERENCES "
        "workflows (id), FOREIGN KEY(run) REFERENCES runs (number))"
    ),
    "CREATE INDEX steps_run ON steps (run)",
    "CREATE INDEX runs_archived ON runs (archived, number)",
    "CREATE INDEX runs_created ON runs (created_at)",
    "CREATE INDEX runs_duration ON runs (duration_s, number)",
    "CREATE INDEX runs_fingerprint ON runs (fingerprint, number) WHERE state = 'complete' AND NOT archived",
    "CREATE INDEX runs_paused ON runs (not_before) WHERE not_before IS NOT NULL",
    "CREATE INDEX runs_machine_type ON runs (machine_type, number)",
    "CREATE INDEX runs_project ON runs (project, number)",
    (
        "CREATE VIRTUAL TABLE runs_text USING fts5(command, description, content='runs', "
        "content_rowid='number', tokenize='trigram')"
    ),
    (
        "CREATE TRIGGER runs_text_insert AFTER INSERT ON runs BEGIN INSERT INTO runs_text(rowid, command, "
        "description) VALUES (new.number, new.command, new.description); END"
    ),
    (
        "CREATE TRIGGER runs_text_update AFTER UPDATE OF command, description ON runs BEGIN INSERT INTO "
        "runs_text(runs_text, rowid, command, description) VALUES ('delete', old.number, old.command, "
        "old.description); INSERT INTO runs_text(rowid, command, description) VALUES (new.number, "
        "new.command, new.description); END"
    ),
    "INSERT INTO runs_text(runs_text) VALUES ('rebuild')",
    (
        "INSERT INTO metric_summaries (run, name, count, step, last, least, most, total) SELECT run, name, n, "
        "step, value, min_value, max_value, sum_value FROM (SELECT m.run, m.name, m.step, m.value, g.n, "
        "g.min_value, g.max_value, g.sum_value FROM metrics m JOIN (SELECT max(id) AS id, count(*) AS n, "
        "min(value) AS min_value, max(value) AS max_value, sum(value) AS sum_value FROM metrics GROUP BY run, "
        "name) g ON g.id = m.id)"
    ),
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
