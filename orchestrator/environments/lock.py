"""One builder for each key, among threads and processes, with what a failed build has to say to those who waited.

The lock is `flock` on a file beside the environments: the kernel gives it back when its holder dies, however it dies.
The holder of a failed build writes the failure into the file before it lets go. Whoever was waiting at that time wanted
this very build and takes its failure for an answer; whoever comes later builds anew. The file is removed with the lock;
those who hold the removed file open can still read it.
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

_POLL_S = 0.02  # flock has no time limit of its own, and a waiter must see that it is cancelled


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed build, for those who waited for it."""

    message: str
    cure: str
    log: tuple[str, ...]


class KeyLock:
    """The lock of one key, held.

    Attributes:
        failure: how the build failed that this caller has waited for; None where it did not, or nobody was building.
    """

    def __init__(self, descriptor: int, failure: Failure | None) -> None:
        self._descriptor = descriptor
        self.failure = failure

    def fail(self, failure: Failure) -> None:
        """Tell those who wait that the build failed."""
        text = {"at": time.monotonic(), "message": failure.message, "cure": failure.cure, "log": failure.log}
        with suppress(OSError):  # a full disk: they will find out for themselves
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(text).encode(), 0)


def lock_path(environments: Path, key: str) -> Path:
    """The file that is locked while `key` is built."""
    return environments / f".lock-{key}"


@contextmanager
def hold(environments: Path, key: str, waiting: Callable[[], None], cancelled: Callable[[], bool]) -> Iterator[KeyLock]:
    """Hold the lock of `key`, after waiting for whoever holds it.

    Args:
        environments: the folder of all environments.
        key: of the environment.
        waiting: called once if there is somebody to wait for.
        cancelled: asked while waiting.
    Raises:
        BuildCancelled: as asked.
    """
    path = lock_path(environments, key)
    since = time.monotonic()
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _try(descriptor):
                if not told:
                    waiting()
                    told = True
                if cancelled():
                    raise BuildCancelled
                time.sleep(_POLL_S)
            failure = _failure(descriptor, since) if told else None
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
    """Hold the lock of `key` if nobody does; tells whether it is held."""
    path = lock_path(environments, key)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
    """Whether the locked file is still the one at its path: another holder may have removed it in the meantime."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _failure(descriptor: int, since: float) -> Failure | None:
    try:
        told: dict[str, Any] = json.loads(os.pread(descriptor, 1 << 20, 0))
        if float(told["at"]) < since:
            return None
        return Failure(str(told["message"]), str(told["cure"]), tuple(map(str, told["log"])))
    except (ValueError, KeyError, TypeError):
        return None
