"""One builder for each key, among threads and processes. A failed build reports its failure to those who waited for it.

The lock is `flock` on a file beside the environments: the kernel releases it when its holder dies. The holder of a failed
build writes the failure into the file before it releases the lock. Those who were waiting at that time wanted the same
build and take its failure as the result; later callers build again. The file is removed with the lock; those who hold
it open can still read it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.environments.uv import BuildCancelled
from orchestrator.home import open_lock

_POLL_S = 0.02  # flock has no time limit, and a waiter must notice that it is cancelled


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a build, for those who waited for it."""

    message: str
    cure: str
    log: tuple[str, ...]


class KeyLock:
    """The lock of one key, while it is held.

    Attributes:
        failure: the failure of the build that this caller waited for; None if it did not fail or none was running.
    """

    def __init__(self, descriptor: int, failure: Failure | None) -> None:
        self._descriptor = descriptor
        self.failure = failure

    def fail(self, failure: Failure) -> None:
        """Report a failed build to those who wait."""
        text = {"at": time.monotonic(), "message": failure.message, "cure": failure.cure, "log": failure.log}
        with suppress(OSError):  # on a full disk, they will fail by themselves
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(text).encode(), 0)


def lock_path(environments: Path, key: str) -> Path:
    """Return the file that is locked while `key` is built."""
    return environments / f".lock-{key}"


@contextmanager
def hold(environments: Path, key: str, waiting: Callable[[], None], cancelled: Callable[[], bool]) -> Iterator[KeyLock]:
    """Hold the lock of `key`; waits for the current holder first.

    Args:
        environments: the folder of all environments.
        key: the key of the environment.
        waiting: called once if another holder must be waited for.
        cancelled: called while waiting.
    Raises:
        BuildCancelled: when cancelled.
    """
    path = lock_path(environments, key)
    since = time.monotonic()
    waited = False
    while True:
        descriptor = open_lock(path)
        try:
            while not _try(descriptor):
                if not waited:
                    waiting()
                    waited = True
                if cancelled():
                    raise BuildCancelled
                time.sleep(_POLL_S)
            failure = _failure(descriptor, since) if waited else None
            if failure is None and not _same_file(descriptor, path):
                continue
            try:
                yield KeyLock(descriptor, failure)
            finally:
                if _same_file(descriptor, path):
                    path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


@contextmanager
def hold_if_free(environments: Path, key: str) -> Iterator[bool]:
    """Hold the lock of `key` if it is free. Yields whether it is held."""
    path = lock_path(environments, key)
    descriptor = open_lock(path)
    try:
        held = _try(descriptor) and _same_file(descriptor, path)
        try:
            yield held
        finally:
            if held:
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    """Whether the locked file is still the one at its path: another holder may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _failure(descriptor: int, since: float) -> Failure | None:
    try:
        words: dict[str, Any] = json.loads(os.pread(descriptor, 1 << 20, 0))
        if float(words["at"]) < since:
            return None
        return Failure(str(words["message"]), str(words["cure"]), tuple(map(str, words["log"])))
    except (ValueError, KeyError, TypeError):
        return None
