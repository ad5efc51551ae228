"""What is recorded: runs, their events, mounts, artifacts, metrics and samples, in SQLite. Rows never leave it."""

from orchestrator.store.store import ClaimedRun, NewRun, Store

__all__ = ["ClaimedRun", "NewRun", "Store"]
