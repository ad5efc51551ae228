"""What is recorded: runs, their events, mounts, artifacts, metrics and samples, in SQLite. Rows never leave it."""

from orchestrator.store.rows import ClaimedRun, Demand, NewRun
from orchestrator.store.store import Store

__all__ = ["ClaimedRun", "Demand", "NewRun", "Store"]
