"""Room that runs have taken: snapshots that nobody needs, outputs and work dirs of archived runs.

Outputs go in this order: noted in the store, renamed out of `runs/`, removed. A server that is killed in between finishes
that at its next start (`finish`), and nobody can mount them meanwhile.
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
"""How long a snapshot stays that no run needs yet: its run is cast only when all of it was sent."""


class Sizes:
    """The room that folders take, and that removing them gives back, when some of their files have several names."""

    def __init__(self) -> None:
        self._gone: dict[tuple[int, int], int] = {}
        self._seen: set[tuple[int, int]] = set()

    def taken(self, folder: Path) -> int:
        """What a folder takes more than all that were asked about before, in bytes."""
        size_bytes = 0
        for info in sizes_below(folder):
            if (info.st_dev, info.st_ino) not in self._seen:
                self._seen.add((info.st_dev, info.st_ino))
                size_bytes += info.st_blocks * 512
        return size_bytes

    def given_back(self, folder: Path) -> int:
        """What a folder gives back that goes now, in bytes: a file counts when the last of its names goes."""
        size_bytes = 0
        for info in sizes_below(folder):
            gone = self._gone[info.st_dev, info.st_ino] = self._gone.get((info.st_dev, info.st_ino), 0) + 1
            if gone >= info.st_nlink:
                size_bytes += info.st_blocks * 512
        return size_bytes


def gc_outputs(context: Context, before: float, keep_bytes: int | None, *, dry_run: bool) -> list[RemovedRecord]:
    """Remove outputs of archived runs that no kept run mounted, no link leads to, and nothing waits for.

    Args:
        before: seconds since the epoch; what was used since stays.
        keep_bytes: those that are left may take so much; the least recently used go first. None for no bound.
        dry_run: only report.
    """
    found, kept_bytes, sizes = [], 0, Sizes()
    for number, used_at in context.store.gc.removable():
        folder = context.home.run_dir(number)
        if not folder.is_dir():  # removed by hand: nobody counts them any more
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
    """Remove what archived runs have left in their work dirs, where it could not be saved."""
    found = []
    for number in context.store.gc.archived(before):
        work = context.home.work_dir(number)
        if work.is_dir():
            found.append(RemovedRecord(f"work dir of run {number}", Sizes().given_back(work), "work"))
            if not dry_run:
                _remove(context.home, work)
    return found


def gc_snapshots(context: Context, before: float, *, dry_run: bool) -> list[RemovedRecord]:
    """Remove the code that no run needs which is kept, and no step, trial or upload; see `GcStore.needed`."""
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
    except (OSError, InvalidConfig):  # whoever uses it next finds that out, and has it sent again
        return frozenset()


def finish(context: Context) -> None:
    """Remove what a killed server has begun to remove."""
    for path in context.home.removed.iterdir():
        _remove_tree(path)
    for number in context.store.gc.removed():
        if context.home.run_dir(number).exists():
            try:
                _remove(context.home, context.home.run_dir(number))
            except OSError as error:  # whatever is in its way, the server starts
                _log.warning("outputs of run %d: %s", number, error)


def _remove(home: Home, folder: Path) -> None:
    aside = home.removed / f"{folder.name}-{uuid.uuid4().hex}"
    try:
        folder.chmod(0o755)  # a sealed folder cannot be moved
        folder.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EXDEV:  # `runs` may be on a disk of its own
            raise
        aside = folder
    _remove_tree(aside)


def _remove_tree(path: Path) -> None:
    try:
        remove_tree(path)
    except SaveFailed as error:  # tried again at the next start
        _log.warning("%s", error.message)
