"""Garbage collection of files of runs: snapshots that no run needs, outputs and work dirs of archived runs.

Outputs are recorded as removed in the store, renamed out of `runs/`, and then removed. After a kill in between the next
server finishes it when it starts (`finish`), and no run can mount them meanwhile.
"""

from __future__ import annotations

import errno
import logging
import uuid
from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from orchestrator.content import manifest as manifests
from orchestrator.content.files import remove_tree, sizes_below
from orchestrator.data.blobs import unused_bytes
from orchestrator.errors import InvalidConfig, SaveFailed
from orchestrator.home import Home
from orchestrator.lifecycle.context import Context
from orchestrator.records.gc import RemovedRecord

_log = logging.getLogger(__name__)
CAST_S = 3600.0
"""How long a snapshot without a run stays: its run is cast only after all of it was sent."""


class Sizes:
    """The size of folders, and the bytes that their removal frees, when some of their files have several names."""

    def __init__(self) -> None:
        self._gone: dict[tuple[int, int], int] = {}
        self._seen: set[tuple[int, int]] = set()

    def taken(self, folder: Path) -> int:
        """The bytes that a folder adds to all folders that were measured before."""
        size_bytes = 0
        for info in sizes_below(folder):
            if (info.st_dev, info.st_ino) not in self._seen:
                self._seen.add((info.st_dev, info.st_ino))
                size_bytes += info.st_blocks * 512
        return size_bytes

    def given_back(self, folder: Path) -> int:
        """The bytes that the removal of a folder frees now: a file counts when its last name goes."""
        size_bytes = 0
        for info in sizes_below(folder):
            gone = self._gone[info.st_dev, info.st_ino] = self._gone.get((info.st_dev, info.st_ino), 0) + 1
            if gone >= info.st_nlink:
                size_bytes += info.st_blocks * 512
        return size_bytes


def gc_outputs(context: Context, before: float, keep_bytes: int | None, *, dry_run: bool) -> list[RemovedRecord]:
    """Remove outputs of archived runs, except those that an unarchived run mounted, or a link or a waiting step needs.

    Args:
        before: seconds since the epoch; outputs that were used since then stay.
        keep_bytes: the size to which the rest is reduced; the least recently used go first. None for no limit.
        dry_run: only report.
    """
    found, kept_bytes, sizes = [], 0, Sizes()
    for number, used_at in context.store.gc.removable():
        folder = context.home.run_dir(number)
        if not folder.is_dir():  # a person removed them: they count no more
            if not dry_run:
                context.store.gc.remove_outputs(number)
            continue
        kept_bytes += sizes.taken(folder)
        if used_at > before and (keep_bytes is None or kept_bytes <= keep_bytes):
            continue
        if dry_run or context.store.gc.remove_outputs(number):
            found.append(RemovedRecord(f"outputs of run {number}", sizes.given_back(folder), "outputs"))
            if not dry_run:
                _remove(context.home, folder)
                context.store.notice(number, "Its outputs were removed by spell gc")
    return found


def gc_work(context: Context, before: float, *, dry_run: bool) -> list[RemovedRecord]:
    """Remove work dirs of archived runs whose outputs could not be saved."""
    found = []
    for number in context.store.gc.archived(before):
        work = context.home.work_dir(number)
        if work.is_dir():
            found.append(RemovedRecord(f"work dir of run {number}", Sizes().given_back(work), "work"))
            if not dry_run:
                _remove(context.home, work)
    return found


def gc_snapshots(context: Context, before: float, *, dry_run: bool) -> list[RemovedRecord]:
    """Remove code that no unarchived run, step, trial or upload needs; see `GcStore.needed`."""
    needed = context.store.gc.needed(before)
    trees, kept, size_bytes = 0, needed.blobs, 0
    for path in sorted(context.home.trees.glob("*.json")):
        gone = None
        if path.stem not in needed.trees:
            gone = unused_bytes(path, before) if dry_run else context.blobs.remove(path, before)
        if gone is None:
            kept |= _digests(path)
        else:
            trees, size_bytes = trees + 1, size_bytes + gone
    files, more_bytes = _gc_blobs(context, kept, before, dry_run=dry_run)
    if not (trees or files):
        return []
    what = f"{trees} snapshot{'s' * (trees != 1)} of code, {files} file{'s' * (files != 1)}"
    return [RemovedRecord(what, size_bytes + more_bytes, "snapshot")]


def _gc_blobs(context: Context, kept: Collection[str], before: float, *, dry_run: bool) -> tuple[int, int]:
    count = size_bytes = 0
    for path in _blobs(context.home):
        if path.parent.name + path.name in kept:
            continue
        gone = unused_bytes(path, before) if dry_run else context.blobs.remove(path, before)
        if gone is not None:
            count, size_bytes = count + 1, size_bytes + gone
    return count, size_bytes


def _blobs(home: Home) -> Iterator[Path]:
    for folder in sorted(home.blobs.iterdir()):
        if folder.is_dir():
            yield from folder.iterdir()


def _digests(tree: Path) -> AbstractSet[str]:
    try:
        return manifests.from_json(tree.read_bytes()).digests
    except (OSError, InvalidConfig):  # the next client that uses it sends it again
        return frozenset()


def finish(context: Context) -> None:
    """Finish removals that a killed server has begun."""
    for path in context.home.removed.iterdir():
        _remove_tree(path)
    for number in context.store.gc.removed():
        if context.home.run_dir(number).exists():
            try:
                _remove(context.home, context.home.run_dir(number))
            except OSError as error:  # the server must start, whatever happens here
                _log.warning("outputs of run %d: %s", number, error)


def _remove(home: Home, folder: Path) -> None:
    aside = home.removed / f"{folder.name}-{uuid.uuid4().hex}"
    try:
        folder.chmod(0o755)  # a sealed folder cannot be moved
        folder.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EXDEV:  # `runs` may be on another disk
            raise
        aside = folder
    _remove_tree(aside)


def _remove_tree(path: Path) -> None:
    try:
        remove_tree(path)
    except SaveFailed as error:  # the next start tries again
        _log.warning("%s", error.message)
