"""The store: runs, and everything that is recorded about them, in SQLite. Rows never leave this package.

database     opens the SQLite file
migrate      migrates a store of an older version
migrations/  the migrations
tables       the tables
store        the only module that writes runs and their states
rows         runs for workers and the scheduler
queue        runs that wait for the machine or occupy it
attempts     failed attempts
runs         runs as people see them
listing      lists of runs
artifacts    outputs and their hashes
metrics      metrics
samples      usage of runs
webhooks     messages that are due
workflows    workflows and their steps
searches     searches and their trials
reuse        complete runs by fingerprint
uploads      records of uploads
secrets      encrypted secrets
labels       labels
archive      archived runs
projects     projects
links        aliases of resources
lineage      mounts of many runs
gc           finds outputs and snapshots that may be removed
"""

from orchestrator.store.rows import ClaimedRun, MachineRequest, NewRun
from orchestrator.store.store import RELEASED, Store, WithRun

__all__ = ["RELEASED", "ClaimedRun", "MachineRequest", "NewRun", "Store", "WithRun"]
