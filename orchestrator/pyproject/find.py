"""Looks for the file that says the environment of a run, and remembers what was found in it.

A script's own metadata (PEP 723) stands for itself, as it does for uv: a script that has it needs no project. Otherwise the
folder counts in which the command starts, then each one above it, up to the root of the code: the first that has any of
`asked.KINDS`, and in it the first of them. A member of a uv workspace has its lock further up.

What was found is kept in a file for each folder, with all that was read for it; as long as that is the same, nothing is read
again and no uv is started. `tool.spell.environment = false` in a pyproject.toml says that nothing is to be found there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from orchestrator.capture.snapshot import Snapshot
from orchestrator.pyproject import script as scripts
from orchestrator.pyproject.asked import Asked, says_something, upwards
from orchestrator.pyproject.files import CodeFiles
from orchestrator.pyproject.found import Found

_FORMAT = 1  # raise it when the same files lead to something else
_MOST_KEPT = 200


class Wanted(NamedTuple):
    """What an environment is looked for.

    Attributes:
        code: the code of the run.
        command: its command, which may name a script.
        asked: what of the project it gets.
        python: the version that was asked for; "" for any.
        env: the variables of the run.
        root: the folder of this machine whose work tree the code is; "" if it is none.
        has_image: whether an image was asked for, which brings its Python.
    """

    code: Snapshot
    command: str
    asked: Asked = Asked()
    python: str = ""
    env: Mapping[str, str] = {}
    root: str = ""
    has_image: bool = False


def find(wanted: Wanted, cache: Path | None = None) -> Found | None:
    """The environment that the code says; None if it says none.

    Args:
        cache: the folder in which is kept what was found; None to keep nothing.

    Raises:
        InvalidConfig: what it says is wrong. The message names file, reason and a way out.
    """
    files, subdir = CodeFiles(wanted.code, wanted.root), wanted.code.code.subdir
    script = scripts.named(files, subdir, wanted.command)
    if not script and not says_something(wanted.code.manifest.entries, subdir):
        return None
    place = cache / f"{_key(wanted, script)}.json" if cache else None
    if place and (kept := _kept(place, files)):
        return kept[0]
    files.asked.clear()
    from orchestrator.pyproject.resolve import resolve  # 25 ms: packaging and more; only what is new needs them

    found = resolve(files, wanted, script, upwards(subdir))
    if place:
        _keep(place, files, found)
    return found


def _key(wanted: Wanted, script: str) -> str:
    code = wanted.code.code
    content = [
        *(_FORMAT, sys.version, sys.platform, wanted.root or code.url, code.repository, code.subdir, script),
        *(wanted.asked.groups, wanted.asked.extras, wanted.python, wanted.has_image, sorted(wanted.env.items())),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _kept(place: Path, files: CodeFiles) -> tuple[Found | None] | None:
    """What was found earlier, if all that was read for it is the same; a tuple, as that may be nothing."""
    try:
        value = json.loads(place.read_bytes())
        if not files.is_as(value["asked"]):
            return None
        return (Found.from_json(value["found"]) if value["found"] else None,)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(place: Path, files: CodeFiles, found: Found | None) -> None:
    """Keep it, and of all only the newest. A disk that is full or read-only only costs time."""
    value = {"asked": files.asked, "found": found._asdict() if found else None}
    beside = place.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(value, file)
        beside.replace(place)
        kept = sorted(place.parent.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in kept[:-_MOST_KEPT]:
            path.unlink(missing_ok=True)
