"""The server itself."""

from __future__ import annotations

import os
import time

import orchestrator
from orchestrator.lifecycle.context import Context
from orchestrator.records import API_VERSION
from orchestrator.records.machines import ServerRecord
from orchestrator.service.access import Who


class Server:
    """The server of one home."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._started_at = time.time()

    def get(self, who: Who) -> ServerRecord:
        """The version, home and process of this server."""
        return ServerRecord(
            version=orchestrator.__version__,
            api=API_VERSION,
            pid=os.getpid(),
            home=str(self._context.home.root),
            started_at=self._started_at,
            executors=sorted(self._context.executors),
            active_runs=self._context.store.active_count(),
            frameworks=self._context.config.framework_names(),
        )
