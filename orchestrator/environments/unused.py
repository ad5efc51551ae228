"""Environments that nobody has used for long: found by the time of their folder, which every use sets, and removed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from orchestrator.environments import uv_cache
from orchestrator.environments.bytecode import BYTECODE
from orchestrator.environments.collected import Removed
from orchestrator.environments.leftovers import remove_environment
from orchestrator.environments.lock import hold_if_free
from orchestrator.environments.published import published_folders


def mark_used(environment: Path) -> None:
    """Note that an environment is used now."""
    os.utime(environment)


def collect(environments: Path, keep: Collection[str], older_than_s: float, *, dry_run: bool) -> list[Removed]:
    """Remove the environments that have not been used for so long, and what only they had of uv's cache for containers.

    Args:
        environments: the folder of all environments.
        keep: keys of those that stay.
        older_than_s: seconds since the last use, until now: what is used while this works stays.
        dry_run: only tell.
    """
    before = time.time() - older_than_s
    found = []
    for path in published_folders(environments):
        if path.name in keep or _is_used(path, before):
            continue
        with hold_if_free(environments, path.name) as held:
            size_bytes = _own_bytes(path) if held else 0
            if held and (dry_run or remove_environment(path, lambda aside: _is_used(aside, before))):
                found.append(Removed(f"environment {path.name}", size_bytes))
                if not dry_run:
                    shutil.rmtree(path.with_name(BYTECODE + path.name), ignore_errors=True)
    return found + uv_cache.collect(environments, before, dry_run=dry_run)


def _is_used(environment: Path, before: float) -> bool:
    try:
        return environment.stat().st_mtime > before
    except FileNotFoundError:
        return True


def _own_bytes(environment: Path) -> int:
    """The room that removing it gives back: not that of files which uv's cache or other environments share."""
    size_bytes = 0
    for folder, _, names in os.walk(environment):
        for name in names:
            info = os.lstat(os.path.join(folder, name))
            size_bytes += info.st_blocks * 512 if info.st_nlink == 1 else 0
    return size_bytes
