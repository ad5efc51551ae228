#!/usr/bin/env bash
# Version:        MLflow 3.17.2
# Behaviour:      A SQLite store of an old schema is refused ("out-of-date database schema … Take a backup of your database,
#                 then run 'mlflow db upgrade'") only if every table of today is in it. If one is missing, as in every store
#                 that an old MLflow left, it is migrated in place when something opens it to read, without a question and
#                 without a backup.
# Expectation:    That an old store is never touched without `mlflow db upgrade`: so says the message, and so says the
#                 documentation of upgrading a tracking server.
# Whom it hurts:  Whoever looks into an old mlflow.db with a new MLflow: the old one cannot open it any more. (It helps who
#                 writes a store without MLflow: the few tables of an early schema are enough.)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mlflow==3.17.2

cat >look.py <<'PYTHON'
"""Reads a store as a program would that only lists its runs; prints what it got."""
import contextlib, logging, sqlite3, sys, warnings

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
with contextlib.redirect_stdout(sys.stderr):
    import mlflow


def version(path):
    with contextlib.closing(sqlite3.connect(path)) as store:
        return store.execute("SELECT version_num FROM alembic_version").fetchone()[0]


before = version(sys.argv[1])
with contextlib.redirect_stdout(sys.stderr):
    try:
        found = len(mlflow.MlflowClient(f"sqlite:///{sys.argv[1]}").search_experiments())
        said = f"{found} experiments"
    except Exception as error:
        said = "refused: " + str(error)[:43]
print(f"{said}; schema {before} -> {'the same' if version(sys.argv[1]) == before else 'another one'}")
PYTHON

cat >make.py <<'PYTHON'
"""Makes a store at a revision of 2019 in MLflow's own way: with its migrations."""
import logging

from alembic import command
from mlflow.store.db.utils import _get_alembic_config, create_sqlalchemy_engine
from mlflow.store.tracking.dbmodels.initial_models import Base

logging.disable(logging.CRITICAL)
url = "sqlite:///old.db"
Base.metadata.create_all(create_sqlalchemy_engine(url))
command.upgrade(_get_alembic_config(url), "7ac759974ad8")
PYTHON

venv/bin/python make.py 2>/dev/null
old=$(venv/bin/python look.py "$folder/old.db" 2>/dev/null)
echo "a store of 2019, which lacks tables:         $old"

# The same store, which has all tables now, with the mark of an earlier schema.
venv/bin/python - <<'PYTHON'
import sqlite3

with sqlite3.connect("old.db") as store:
    store.execute("UPDATE alembic_version SET version_num = '7ac759974ad8'")
PYTHON
whole=$(venv/bin/python look.py "$folder/old.db" 2>/dev/null)
echo "the same mark in a store with all tables:    $whole"

if [[ "$old" == *"-> another one" && "$whole" == "refused: Detected out-of-date"*"-> the same" ]]; then
    echo 'VERDICT: still so: a store that lacks a table is migrated by who only reads it'
    exit 0
fi
echo "VERDICT: changed"
exit 1
