"""Hashes artifacts in the background, so that no run waits for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from orchestrator.content.files import sha256
from orchestrator.content.manifest import LINK, actual
from orchestrator.data.blobs import sync_all
from orchestrator.data.dedup import Dedup
from orchestrator.home import Home
from orchestrator.loops import Loop
from orchestrator.records.files import ArtifactRecord
from orchestrator.store import Store

_log = logging.getLogger(__name__)
_HASHES_AT_ONCE = 200
_ERROR_PAUSE_S = 5.0
_FEW = 10  # files; for more, the whole file system is synced at once
_TRIES = 5  # attempts to read a file


class Hasher:
    """Hashes artifacts in the background. An artifact with a hash was synced to the disk."""

    def __init__(self, store: Store, home: Home) -> None:
        self._store, self._home = store, home
        self._loop = Loop("hasher", self._hash_all, error_pause_s=_ERROR_PAUSE_S)
        self._dedup, self._is_clear = Dedup(store, home, self._loop.is_closing), False
        self._failed: dict[tuple[int, str], int] = {}
        self._loop.start()

    def wake(self) -> None:
        """Look for new artifacts."""
        self._loop.wake()

    def close(self) -> None:
        """Stop, even in the middle of a file."""
        self._loop.close()

    def _hash_all(self) -> None:
        if not self._is_clear:
            self._dedup.finish()
            self._is_clear = True
        while self._hash_some() and not self._loop.is_closing():
            pass

    def _hash_some(self) -> bool:
        todo = self._store.unhashed(_HASHES_AT_ONCE)
        found, latest = list[tuple[int, str, str]](), dict[tuple[str, str, int], ArtifactRecord]()
        is_one_by_one = len(todo) <= _FEW
        for item in todo:
            try:
                digest = self._digest(item, durably=is_one_by_one)
            except OSError:
                failed = self._failed[item.run, item.path] = self._failed.get((item.run, item.path), 0) + 1
                if failed < _TRIES:  # for example too many open files
                    self._record(found, is_durable=is_one_by_one)
                    raise
                digest = ""
            if digest is None:
                break
            if digest and item.mode != LINK:
                key = digest, item.mode, item.size
                # before its hash is recorded: if the server is killed in between, the next one does it again
                self._dedup.share(item, digest, [latest[key]] if key in latest else [])
                latest[key] = item
            found.append((item.run, item.path, digest))
        self._record(found, is_durable=is_one_by_one)
        return bool(todo)

    def _record(self, found: Sequence[tuple[int, str, str]], *, is_durable: bool) -> None:
        if found and not is_durable:
            sync_all(self._home.runs)
        self._store.set_hashes(found)

    def _digest(self, item: ArtifactRecord, *, durably: bool) -> str | None:
        """Return its hash; "" when it differs from the record or was removed by hand; None when the server ends."""
        path = self._home.run_dir(item.run) / actual(item.path)
        try:
            if os.lstat(path).st_size != item.size:
                _log.error("run %d: the size of %s has changed since it was saved", item.run, item.path)
                return ""
            return sha256(path, self._loop.is_closing, durably=durably)
        except (FileNotFoundError, NotADirectoryError):
            return ""
