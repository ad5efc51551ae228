"""The server itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

import orchestrator
from orchestrator.lifecycle.context import Context
from orchestrator.records import API_VERSION
from orchestrator.records.machines import ServerRecord
from orchestrator.service.access import Who


class Server:
    """The server of one home."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config = _content(context.home.config)
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
            config_changed=self.has_old_config(),
            frameworks=self._context.config.framework_names(),
        )

    def has_old_config(self) -> bool:
        """Whether the file of the configuration was changed since the server started."""
        return _content(self._context.home.config) != self._config


def _content(path: Path) -> bytes:
    """The bytes of a file; b"" if it does not exist or cannot be read, as then the defaults are used."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
