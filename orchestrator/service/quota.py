"""Quota: the space that the home takes and may take. Measured in the background, so that no cast waits for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.content.files import sizes_below
from orchestrator.data import caches
from orchestrator.data.blobs import ROOM_CURE, free_bytes
from orchestrator.errors import DiskFull
from orchestrator.lifecycle.context import Context
from orchestrator.loops import Loop
from orchestrator.records.machines import CheckRecord
from orchestrator.service.gc import gc_caches, limit_environments

_log = logging.getLogger(__name__)
_AGAIN_S = 3700.0  # environments that were too young the first time are old enough then
_MEASURED_S, _REFUSED_S = (
    60.0,
    5.0,
)  # how long a measurement is valid; and one for which a cast or an upload was refused
_CACHES_AGAIN_S = 300.0
_LEAST_FREE_BYTES = 256 << 10
_FREE_CURE = "Make room: spell gc; or lower free_gb in [limits] of config.toml."
_CACHES_CURE = "What active runs may use stays. Make room now: spell gc --only caches --older-than 0; or raise limit_gb in [caches] of config.toml."
_CURE = (
    "Make room: spell gc --only caches --older-than 0; spell archive RUN…, then spell gc --older-than 0; "
    "spell rm uploads/NAME; "
    "or raise home_gb in [limits] of config.toml."
)


class Quota:
    """Enforces the space limits of one home: `free_gb`, `home_gb`, `environments_gb` and that of caches in the configuration.

    Args:
        context: the home, its store and configuration.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._limits = context, context.config.limits
        self._limit_caches_bytes = context.config.caches.limit_bytes
        self._is_new = True  # the limit may be lower than that of the last server
        self._trim_at: float | None = None
        self._measured: dict[str, int] = {}
        self._measured_at: float | None = None
        self._caches_at, self._caches_bytes = 0.0, 0
        self._loop = Loop("quota", self._trim, self._trim_caches, self._measure, wait_s=self._until_trim_s)

    def start(self) -> None:
        """Begin."""
        self._loop.start()

    def close(self) -> None:
        """End."""
        self._loop.close()

    def built(self) -> None:
        """An environment was built: enforce `environments_gb`."""
        self._is_new = True
        self._loop.wake()

    def changed(self) -> None:
        """Much was removed: measure again."""
        self._measured_at, self._caches_at = None, 0.0
        self._loop.wake()

    # -- checks before a cast or an upload ----------------------------------------------------------------------

    def check(self) -> None:
        """Check that a run may be cast.

        Raises:
            DiskFull: the disk has too little free space, or the home takes too much.
        """
        root = self._context.home.root
        wanted, free = self._limits.free_bytes, free_bytes(root)
        if free < _LEAST_FREE_BYTES:
            raise DiskFull(
                f"The disk of {root} is full: {free >> 10} KiB are free, too little to cast a run.", ROOM_CURE
            )
        if free < wanted:
            words = f"The disk of {root} has {_size(free)} left; no run is cast below {_size(wanted)}."
            raise DiskFull(words, _FREE_CURE)
        self.check_quota()

    def check_quota(self, more_bytes: int = 0) -> None:
        """Check that the home may grow.

        The store knows the size of runs and uploads; the rest was measured within the last minute.

        Args:
            more_bytes: the bytes that will be added.

        Raises:
            DiskFull: the home would take more than `home_gb`. The message lists the sizes of its parts.
        """
        if not (bound := self._limits.home_bytes):
            return
        used = self._used()
        total = sum(used.values())
        if total + more_bytes > bound or (more_bytes == 0 and total >= bound):
            self._refused()
            coming = f", and {_size(more_bytes)} would be added" if more_bytes else ""
            words = f"The home {self._context.home.root} takes {_size(total)}{coming}; home_gb allows {_size(bound)}."
            raise DiskFull(f"{words} {_shares(used)}.", _CURE)
        self._loop.wake()

    def warnings(self) -> Iterator[str]:
        """Yield what a person who casts a run should know."""
        if self._limit_caches_bytes and self._caches_bytes > self._limit_caches_bytes:
            yield f"{self._words_of_full_caches(self._caches_bytes)}\n  {_CACHES_CURE}"

    def _words_of_full_caches(self, taken: int) -> str:
        allowed = f"limit_gb of [caches] allows {_size(self._limit_caches_bytes)}"
        return f"The caches of runs take {_size(taken)}, and {allowed}."

    def check_caches(self) -> Iterator[CheckRecord]:
        """What the caches of runs take."""
        taken, limit = caches.size_bytes(self._context.home), self._limit_caches_bytes
        if limit and taken > limit:
            yield CheckRecord("caches", "warn", self._words_of_full_caches(taken), _CACHES_CURE)
        elif self._context.config.caches.enabled or taken:
            words = f"the caches of runs take {_size(taken)}{f' of {_size(limit)} (limit_gb)' if limit else ''}"
            yield CheckRecord("caches", "ok", f"{words}, in {self._context.home.caches}{_of_your_own(self._context)}")

    def checks(self) -> Iterator[CheckRecord]:
        """Whether a run can be cast, and the size of the home if `home_gb` limits it."""
        wanted, free = self._limits.free_bytes, free_bytes(self._context.home.root)
        if free < wanted:
            words = f"no run is cast: {_size(free)} are free on the disk, and {_size(wanted)} must be (free_gb)"
            yield CheckRecord("room", "fail", words, _FREE_CURE)
        if not (bound := self._limits.home_bytes):
            return
        used = self._used()
        total = sum(used.values())
        words = f"the home takes {_size(total)} of {_size(bound)} (home_gb). {_shares(used)}"
        yield CheckRecord("room", "ok", words) if total < bound else CheckRecord("room", "warn", words, _CURE)

    def _refused(self) -> None:
        """Measure again after a refusal: a person may have made room by other means than `spell gc`."""
        if self._measured_at is not None and time.monotonic() > self._measured_at + _REFUSED_S:
            self._measured_at = None
        self._loop.wake()

    def _used(self) -> dict[str, int]:
        used = dict(self._measured)
        used["runs"] = self._context.store.gc.outputs_bytes()
        uploads = sum(upload.bytes for upload in self._context.store.uploads.list())
        used["uploads"] = used.get("uploads", 0) + uploads
        return used

    # -- in the background --------------------------------------------------------------------------------------

    def _until_trim_s(self) -> float | None:
        ends = [self._trim_at] if self._trim_at is not None else []
        ends += [self._caches_at] if self._limit_caches_bytes else []
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _trim(self) -> None:
        is_again = self._trim_at is not None and time.monotonic() >= self._trim_at
        if not self._limits.environments_bytes or not (self._is_new or is_again):
            return
        was_new, self._is_new = self._is_new, False  # set first: a build during the work causes another pass
        try:
            for removed in limit_environments(self._context, self._limits.environments_bytes):
                _log.info("removed for environments_gb: %s", removed.what)
        except Exception:
            self._is_new = self._is_new or was_new  # the loop tries again
            raise
        self._trim_at = time.monotonic() + _AGAIN_S if was_new else None

    def _trim_caches(self) -> None:
        """Hold the caches to `limit_gb`, as far as active runs do not use them; runs write to them at any time."""
        if not self._limit_caches_bytes or time.monotonic() < self._caches_at:
            return
        self._caches_at = time.monotonic() + _CACHES_AGAIN_S
        for removed in gc_caches(self._context, 0.0, self._limit_caches_bytes):
            _log.info("removed for limit_gb: %s", removed.what)
        self._caches_bytes = caches.size_bytes(self._context.home)

    def _measure(self) -> None:
        """Measure the parts that the store does not know; a file with several names counts once."""
        is_fresh = self._measured_at is not None and time.monotonic() < self._measured_at + _MEASURED_S
        if not self._limits.home_bytes or is_fresh:
            return
        self._measured_at = time.monotonic()  # set first: a change during the measurement causes another one
        home, counted = self._context.home, set[tuple[int, int]]()
        self._measured = {
            "environments": self._bytes(counted, home.environments),
            "snapshots": self._bytes(counted, home.blobs, home.trees),
            "caches": self._bytes(counted, home.caches),
            "uploads": self._bytes(counted, home.incoming),
            "logs and work dirs": self._bytes(counted, home.logs, home.work, home.removed),
        }

    def _bytes(self, counted: set[tuple[int, int]], *folders: Path) -> int:
        size_bytes = 0
        for top in folders:
            for info in sizes_below(top):
                if self._loop.is_closing():
                    return size_bytes
                if (info.st_dev, info.st_ino) not in counted:
                    counted.add((info.st_dev, info.st_ino))
                    size_bytes += info.st_blocks * 512
        return size_bytes


def _of_your_own(context: Context) -> str:
    """Words about models that the person has already, and that runs do not find."""
    own = Path.home() / ".cache" / "huggingface"
    is_unused = context.config.caches.enabled and "HF_HOME" not in {*context.config.caches.folders, *context.server_env}
    if not (is_unused and (own / "hub").is_dir()):
        return ""
    return f'. Models in {own} are not used by runs; to use them: [caches.folders] HF_HOME = "{own}" in config.toml'


def _shares(used: dict[str, int]) -> str:
    """The sizes of all parts, the largest first."""
    shares = sorted(used.items(), key=lambda share: -share[1])
    words = ", ".join(f"{name} {_size(size_bytes)}" for name, size_bytes in shares)
    return words[:1].upper() + words[1:]


def _size(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.1f} GiB" if size_bytes >= 1 << 30 else f"{size_bytes / (1 << 20):.1f} MiB"
