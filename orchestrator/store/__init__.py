"""What is recorded: runs, their events, mounts, artifacts, metrics and samples, in SQLite. Rows never leave it."""

from orchestrator.store.rows import ClaimedRun, MachineRequest, NewRun
from orchestrator.store.store import RELEASED, Store, WithRun

__all__ = ["RELEASED", "ClaimedRun", "MachineRequest", "NewRun", "Store", "WithRun"]
