"""Removes unused environments. Every use sets the modification time of their folder."""

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
from orchestrator.environments.integrity import NOTE
from orchestrator.environments.lock import hold_if_free
from orchestrator.environments.orphans import remove_environment
from orchestrator.environments.published import published_folders
from orchestrator.records.gc import RemovedRecord


@dataclass(frozen=True, slots=True)
class Limit:
    """How much disk space environments may take.

    Attributes:
        keep_bytes: the limit in bytes; a file shared between them, or with uv's cache, counts once.
        before: seconds since the epoch; environments used since then stay, whatever they take.
    """

    keep_bytes: int
    before: float


def mark_used(environment: Path) -> None:
    """Record that an environment is used now."""
    os.utime(environment)


def gc(
    environments: Path, keep: Collection[str], older_than_s: float, *, dry_run: bool, limit: Limit | None = None
) -> list[RemovedRecord]:
    """Remove environments that were not used for this time, and the packages in uv's cache that only they used.

    Args:
        environments: the folder of all environments.
        keep: keys of environments that stay.
        older_than_s: seconds since the last use, counted from now: an environment used while this works stays.
        dry_run: remove nothing.
        limit: then also remove the least recently used ones, until the rest is within this limit.
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
                found.append(RemovedRecord(f"environment {path.name}", size_bytes, "environment"))
                if not dry_run:
                    shutil.rmtree(path.with_name(BYTECODE + path.name), ignore_errors=True)
                    path.with_name(NOTE + path.name).unlink(missing_ok=True)
    # packages of environments that the limit removed free no space until they are removed too
    packages_before = max(before, limit.before) if limit and found else before
    return found + uv_cache.gc(environments, packages_before, dry_run=dry_run)


def _in_order(environments: Path, keep: Collection[str]) -> list[Path]:
    """Return the environments: those in use first, then by their last use."""

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
    """Return the disk space of its files that are not counted yet, and count them."""
    size_bytes = 0
    for info in _files(environment):
        if (info.st_dev, info.st_ino) not in counted:
            counted.add((info.st_dev, info.st_ino))
            size_bytes += info.st_blocks * 512
    return size_bytes


def _own_bytes(environment: Path) -> int:
    """Return the disk space that removing it frees: without files shared with uv's cache or other environments."""
    return sum(info.st_blocks * 512 for info in _files(environment) if info.st_nlink == 1)


def _files(environment: Path) -> Iterator[os.stat_result]:
    for folder, _, names in os.walk(environment):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # byte code that is just being written
                yield os.lstat(os.path.join(folder, name))
