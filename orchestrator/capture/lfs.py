"""Finds the content of Git LFS files that a repository of this machine has fetched.

A commit has pointers in place of these files; the content lies in the folder of LFS under its SHA-256.
Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from orchestrator.capture.git import Git

_POINTER = rb"(?s).*\noid sha256:([0-9a-f]{64})\nsize (\d{1,18})\n"


class Content(NamedTuple):
    """The content of a file: its SHA-256, its size in bytes, and where it lies."""

    digest: str
    size: int
    place: bytes


def folder(git: Git) -> Path:
    """The folder of LFS of a repository."""
    own = os.fsdecode(git.run("config", "--get", "lfs.storage").out).strip() or "lfs"
    common = os.fsdecode(git.output("rev-parse", "--git-common-dir")).strip()
    return git.cwd / common / own / "objects"


def content(pointer: bytes, objects: Path) -> Content | None:
    """The content that a pointer stands for; None if it is not here, or not whole."""
    found = re.match(_POINTER, pointer)
    if not found:
        return None
    digest, size = found[1].decode(), int(found[2])
    place = objects / digest[:2] / digest[2:4] / digest
    try:
        return Content(digest, size, os.fsencode(place)) if place.stat().st_size == size else None
    except OSError:
        return None
