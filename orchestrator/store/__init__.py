"""What is recorded of a home, in SQLite. Rows never leave this package: each file is one noun, and returns its records.

store      the entry to this package: records runs, and moves them from state to state
runs       runs as users see them: found by a reference, listed, and in full
listing    the queries of lists of runs
rows       runs as workers and the scheduler see them
queue      runs that wait for the machine, and runs that hold a part of it
stop_requests  which requests to stop a run are accepted, and that they have their effect
imports    runs of other trackers, and where they came from
casts      keys of requests to cast, so that one that comes twice casts once
attempts   failed attempts
artifacts  outputs of runs, with their hashes
metrics    metrics of runs
trackers   files of trackers in runs: how far they were read; parameters that were logged
samples    what runs used
lineage    mounts between runs
reuse      earlier runs that did the same
archive    runs that were taken out of lists
labels     words on runs
projects   groups of runs
links      aliases for resources
uploads    records of uploads
secrets    encrypted secrets
searches   searches and their trials
workflows  workflows and their steps
webhooks   notifications of the end of runs
gc         outputs that may be removed, and snapshots that are needed
tables     the tables of the store
room       disk space that is set aside for the store, and for what frees more
database   the SQLite file: connections, transactions, errors
migrate    migrates the store of an older version
migrations/  how, one step for each version
"""

from orchestrator.store.casts import CastBefore
from orchestrator.store.rows import ClaimedRun, MachineRequest, NewRun
from orchestrator.store.stop_requests import RequestedStop, Unheeded
from orchestrator.store.store import RELEASED, Store, WithRun

__all__ = [
    "RELEASED",
    "CastBefore",
    "ClaimedRun",
    "MachineRequest",
    "NewRun",
    "RequestedStop",
    "Store",
    "Unheeded",
    "WithRun",
]
