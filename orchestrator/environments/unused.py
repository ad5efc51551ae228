"""Environments that nobody has used for long: found by the time of their folder, which every use sets, and removed."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.environments import uv_cache
from orchestrator.environments.bytecode import BYTECODE
from orchestrator.environments.lock import hold_if_free
from orchestrator.environments.orphans import remove_environment
from orchestrator.environments.published import published_folders
from orchestrator.records.gc import CollectedRecord


@dataclass(frozen=True, slots=True)
class Limit:
    """How much room environments may take.

    Attributes:
        keep_bytes: so much; a file that several of them share, or uv's cache, counts once.
        before: seconds since the epoch; what was used since stays, whatever it takes.
    """

    keep_bytes: int
    before: float


def mark_used(environment: Path) -> None:
    """Note that an environment is used now."""
    os.utime(environment)


def gc(
    environments: Path, keep: Collection[str], older_than_s: float, *, dry_run: bool, limit: Limit | None = None
) -> list[CollectedRecord]:
    """Remove the environments that have not been used for so long, and what only they had of uv's cache for containers.

    Args:
        environments: the folder of all environments.
        keep: keys of those that stay.
        older_than_s: seconds since the last use, until now: what is used while this works stays.
        dry_run: only tell.
        limit: of those that are left, the least recently used go, too, until they take no more than that.
    """
    before = time.time() - older_than_s
    found, kept_bytes, counted = [], 0, set[tuple[int, int]]()
    for path in _in_order(environments, keep):
        kept_bytes += _new_bytes(path, counted) if limit else 0
        is_too_much = limit is not None and kept_bytes > limit.keep_bytes
        bound = max(before, limit.before) if limit and is_too_much else before
        if path.name in keep or _is_used(path, bound):
            continue
        with hold_if_free(environments, path.name) as held:
            size_bytes = _own_bytes(path) if held else 0
            if held and (dry_run or remove_environment(path, functools.partial(_is_used, before=bound))):
                found.append(CollectedRecord(f"environment {path.name}", size_bytes, "environment"))
                if not dry_run:
                    shutil.rmtree(path.with_name(BYTECODE + path.name), ignore_errors=True)
    # what only those had that went for lack of room gives back no room before it goes, too
    packages_before = max(before, limit.before) if limit and found else before
    return found + uv_cache.gc(environments, packages_before, dry_run=dry_run)


def _in_order(environments: Path, keep: Collection[str]) -> list[Path]:
    """What is in use, then what was used last."""

    def rank(path: Path) -> tuple[bool, float]:
        try:
            return path.name not in keep, -path.stat().st_mtime
        except FileNotFoundError:
            return True, 0.0

    return sorted(published_folders(environments), key=rank)


def _is_used(environment: Path, before: float) -> bool:
    try:
        return environment.stat().st_mtime > before
    except FileNotFoundError:
        return True


def _new_bytes(environment: Path, counted: set[tuple[int, int]]) -> int:
    """The room that its files take which were not counted yet; they are from now on."""
    size_bytes = 0
    for info in _files(environment):
        if (info.st_dev, info.st_ino) not in counted:
            counted.add((info.st_dev, info.st_ino))
            size_bytes += info.st_blocks * 512
    return size_bytes


def _own_bytes(environment: Path) -> int:
    """The room that removing it gives back: not that of files which uv's cache or other environments share."""
    return sum(info.st_blocks * 512 for info in _files(environment) if info.st_nlink == 1)


def _files(environment: Path) -> Iterator[os.stat_result]:
    for folder, _, names in os.walk(environment):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # byte code that is being written
                yield os.lstat(os.path.join(folder, name))
