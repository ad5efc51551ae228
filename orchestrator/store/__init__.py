"""What is recorded: runs, their events, mounts, artifacts, metrics and samples, in SQLite. Rows never leave it."""

from orchestrator.store.rows import ClaimedRun, Demand, NewRun
from orchestrator.store.store import RELEASED, Store, WithRun

__all__ = ["RELEASED", "ClaimedRun", "Demand", "NewRun", "Store", "WithRun"]
