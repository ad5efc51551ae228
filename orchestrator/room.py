"""Room in the home: kept in the background while the server runs."""

from __future__ import annotations

import logging
import threading
import time

from orchestrator.collect import limit_environments
from orchestrator.workshop import Workshop

_log = logging.getLogger(__name__)
_AGAIN_S = 3700.0  # what was too young to go at the first time is not by then


class Room:
    """Holds the environments of one home to the room that they may take.

    Args:
        shop: the home, its store and configuration.
    """

    def __init__(self, shop: Workshop) -> None:
        self._shop, self._limits = shop, shop.config.limits
        self._wake, self._closing = threading.Event(), threading.Event()
        self._is_new = True  # the bound may be lower than it was under the last server
        self._trim_at: float | None = None
        self._thread = threading.Thread(target=self._loop, name="room", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._wake.set()
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def built(self) -> None:
        """There is a new environment."""
        self._is_new = True
        self._wake.set()

    def _loop(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(None if self._trim_at is None else max(0.0, self._trim_at - time.monotonic()))
            self._wake.clear()
            try:
                if not self._closing.is_set():
                    self._trim()
            except Exception:  # whatever is in the way: it is tried again after the next build
                _log.exception("environments could not be held to environments_gb")

    def _trim(self) -> None:
        is_again = self._trim_at is not None and time.monotonic() >= self._trim_at
        if not self._limits.environments_bytes or not (self._is_new or is_again):
            return
        self._trim_at = time.monotonic() + _AGAIN_S if self._is_new else None
        self._is_new = False
        for removed in limit_environments(self._shop, self._limits.environments_bytes):
            _log.info("removed for environments_gb: %s", removed.what)
