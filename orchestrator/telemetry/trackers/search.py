"""Finds the files of trackers in a work dir. Links are not followed; environments, caches and repositories are not entered."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from orchestrator.formats import csv_log, tfevents, wandb_log

TENSORBOARD, WANDB, DATABASE, MLFLOW_METRIC, MLFLOW_PARAMETER, LIGHTNING = (
    "tensorboard wandb database mlflow_metric mlflow_parameter lightning".split()
)
OF_MLFLOW = re.compile(r"(?:^|/)([0-9a-f]{32})/(metrics|params)/(.+)$")
"""A path in a folder `mlruns`: run, kind, name."""

_DATABASES = (".db", ".sqlite", ".sqlite3")
_SKIPPED = {".git", "__pycache__", "node_modules", "site-packages"}
_OWN_OF_WANDB = re.compile(r"(?:offline-)?run-\d{8}_\d{6}-")
_MOST_ENTRIES = 500_000
_DEEPEST = 24


def kind_of(path: str) -> str:
    """Return the kind of a file by its path; "" for none that matters."""
    name = path.rpartition("/")[2]
    if tfevents.MARK in name:
        return TENSORBOARD
    if name.endswith(wandb_log.SUFFIX):
        return WANDB
    if name == csv_log.NAME:
        return LIGHTNING
    if name.endswith(_DATABASES):
        return DATABASE
    if "/metrics/" in path or "/params/" in path:
        found = OF_MLFLOW.search(path)
        if found:
            return MLFLOW_METRIC if found[2] == "metrics" else MLFLOW_PARAMETER
    return ""


def files(root: Path) -> Iterator[tuple[str, str]]:
    """Yield path and kind of each file below `root` that matters, in no order."""
    todo, seen = [("", 0)], 0
    while todo and seen < _MOST_ENTRIES:
        below, depth = todo.pop()
        entries: list[os.DirEntry[str]] = []
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to read
            entries = list(os.scandir(root / below))
        seen += len(entries)
        if below and any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    if depth < _DEEPEST and not _is_skipped(below, entry.name):
                        todo.append((path, depth + 1))
                elif (kind := kind_of(path)) and entry.is_file(follow_symlinks=False):
                    yield path, kind


def _is_skipped(folder: str, name: str) -> bool:
    return name in _SKIPPED or bool(_OWN_OF_WANDB.match(folder.rpartition("/")[2]))
