"""Makes a store with a version of spell; see README.md. Uses the Python API of that version."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from pathlib import Path

from orchestrator.client.client import Client
from orchestrator.home import Home
from orchestrator.spec.mounts import Mount
from orchestrator.spec.run import RunSpec
from orchestrator.store import NewRun, Store
from orchestrator.store.database import Database

METRIC = "from orchestrator.runtime import send_metric; [send_metric('loss', 1 / step) for step in (1, 2, 4)]"


def main(folder: Path, target: Path) -> None:
    """Cast two runs in a fresh home below `folder`, leave a third one in the queue, and keep the store as `target`."""
    home = Home(folder)
    with Client(home) as client:
        client.runs.cast(
            RunSpec(
                command=f'echo hello > data.txt && python -c "{METRIC}"',
                name="first",
                description="writes data",
                labels=("kept", "old"),
                env={"COLOUR": "blue"},
            )
        )
        client.runs.wait("1", 60)
        while any(item.sha256 is None for item in client.runs.artifacts("1")):
            time.sleep(0.01)
        client.runs.cast(
            RunSpec(
                command="cat data.txt; exit :CODE:",
                mounts=(Mount("runs/1/data.txt", "data.txt"),),
                params={"CODE": "3"},
            )
        )
        client.runs.wait("2", 60)
        client.server.stop()
    while home.socket.exists():
        time.sleep(0.01)
    spec = RunSpec(command="echo waited > late.txt", name="waiting", labels=("old",))
    Store(Database(home.database)).add(NewRun(spec, "process", 1.0, None, 0))
    shutil.copy(home.database, target)
    for suffix in ("-wal", "-shm"):
        if home.database.with_name(home.database.name + suffix).exists():
            shutil.copy(home.database.with_name(home.database.name + suffix), target.with_name(target.name + suffix))
    with sqlite3.connect(target) as store:
        store.execute("PRAGMA journal_mode=DELETE")
        store.execute("VACUUM")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
