"""The caches of uv: one for builds on this machine, one for builds in containers. Only builds of this home write to them.

A cache that the person's other environments share would let an edit in one of them into ours, as uv links their files.
Packages that no environment links to are removed; uv fetches them again on demand.

For a package, uv keeps `archive-v0/ID`, a link `wheels-v8/…/X` to it, and beside that link a file `X.rev` or `X.http`. It
trusts some of these files without checking the archive, so they are removed first.

Containers write to theirs, and their programs may be hostile: everything is opened from its folder, and no link is followed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from orchestrator.environments.orphans import CONTAINERS, REMOVED
from orchestrator.environments.uv import BuildCancelled
from orchestrator.records.gc import RemovedRecord

CACHE = "uv-cache"  # in CONTAINERS
OWN_CACHE = ".uv-cache"
"""The cache for builds on this machine, in the folder of all environments, so that files can be linked."""
_ARCHIVES = "archive-v0"
_BUCKETS = ("wheels-", "sdists-")  # where the links to archives are
_POINTERS = ("", ".rev", ".http")
_POLL_S = 0.02


@contextmanager
def used(environments: Path, cancelled: Callable[[], bool]) -> Iterator[None]:
    """Use the cache: nothing is removed from it meanwhile. Many may use it at once.

    Raises:
        BuildCancelled: when cancelled while waiting for a removal to end.
    """
    with _opened(environments) as folder:
        while not _lock(folder, fcntl.LOCK_SH):
            if cancelled():
                raise BuildCancelled
            time.sleep(_POLL_S)
        yield


def gc(environments: Path, before: float, *, dry_run: bool) -> list[RemovedRecord]:
    """Remove packages that are older than a moment and that no environment links to; none while a build goes on.

    Args:
        environments: the folder of all environments.
        before: seconds since the epoch.
        dry_run: remove nothing.
    """
    found: dict[str, int] = {}
    with ExitStack() as stack:
        aside = ""
        if not dry_run:  # where no container sees it; the next start removes it if this server is killed
            aside = tempfile.mkdtemp(prefix=f"{REMOVED}{CACHE}-", dir=environments)
            stack.callback(shutil.rmtree, aside, ignore_errors=True)
        with _opened(environments) as folder:
            if not _lock(folder, fcntl.LOCK_EX):
                return []
            for cache in (environments / OWN_CACHE, environments / CONTAINERS / CACHE):
                with suppress(FileNotFoundError, NotADirectoryError):
                    found |= _gc(cache, before, aside)
    return [RemovedRecord("packages in uv's cache", sum(found.values()), "package")] if found else []


def _gc(place: Path, before: float, aside: str) -> dict[str, int]:
    """Move the packages of one cache aside ("" leaves them). Returns their names and sizes in bytes."""
    with _opened(place) as cache, _opened(_ARCHIVES, cache) as archives:
        unlinked = _unlinked(archives, before)
        if aside:
            _forget(cache, unlinked)
            for name in unlinked:
                with suppress(OSError):
                    os.rename(name, Path(aside, name), src_dir_fd=archives)
    return unlinked


def _unlinked(archives: int, before: float) -> dict[str, int]:
    """Return names and sizes in bytes of the archives that share no file with an environment."""
    found = {}
    for name in os.listdir(archives):
        with suppress(OSError, RecursionError):  # a hostile build may have made it unreadable
            if os.stat(name, dir_fd=archives, follow_symlinks=False).st_mtime > before:
                continue
            size_bytes = _own_bytes(archives, name)
            if size_bytes is not None:
                found[name] = size_bytes
    return found


def _own_bytes(folder: int, name: str) -> int | None:
    """Return the size of a folder in bytes; None when a file in it has a hard link elsewhere."""
    size_bytes = 0
    for _, _, names, inner in os.fwalk(name, dir_fd=folder):
        for file in names:
            info = os.lstat(file, dir_fd=inner)
            if info.st_nlink > 1:
                return None
            size_bytes += info.st_blocks * 512
    return size_bytes


def _forget(cache: int, archives: dict[str, int]) -> None:
    """Remove the links and files that lead to these archives."""
    for bucket in os.listdir(cache):
        if not bucket.startswith(_BUCKETS):
            continue
        with suppress(OSError, RecursionError):
            for _, folders, files, inner in os.fwalk(bucket, dir_fd=cache):
                for name in (*folders, *files):
                    if _leads_to(name, inner) in archives:
                        for end in _POINTERS:
                            with suppress(OSError):
                                os.unlink(name + end, dir_fd=inner)


def _leads_to(name: str, folder: int) -> str:
    try:
        return os.path.basename(os.readlink(name, dir_fd=folder))
    except OSError:
        return ""


@contextmanager
def _opened(folder: str | Path, inside: int | None = None) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
