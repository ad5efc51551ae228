"""Compares two snapshots: files by their digests, and text files line by line.

Git compares the lines. It gets copies of the files under names that we choose, and no user's settings.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.content.manifest import Entry, Manifest
from orchestrator.home import Home
from orchestrator.records.compare import CodeChangeRecord

MOST_FILE_BYTES = 1 << 20
_MOST_FILES, _MOST_BYTES, _MOST_PATCH_BYTES = 1000, 32 << 20, 4 << 20
_LIMIT_S = 20.0
_SECTION = re.compile(rb"^diff --git [^\n]*/(\d+)$", re.MULTILINE)
_GIT = (
    "git",
    "-c",
    "core.attributesFile=/dev/null",
    "-c",
    "diff.algorithm=histogram",
    "-c",
    "core.quotePath=true",
    "diff",
    "--no-index",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "before",
    "after",
)


@dataclass(frozen=True, slots=True)
class _Change:
    kind: str
    before: Entry | None
    after: Entry | None


def code_changes(home: Home, before: Manifest, after: Manifest) -> list[CodeChangeRecord]:
    """The files that differ, by path."""
    found = _changes(before, after)
    patches = _patches(home, found)
    records = []
    for index, change in enumerate(found):
        patch, note = patches.get(index, ("", ""))
        old, new = change.before, change.after
        named = new or old
        assert named is not None
        records.append(
            CodeChangeRecord(
                path=named.path,
                kind=change.kind,
                before_path=old.path if old else "",
                before_mode=old.mode if old else "",
                after_mode=new.mode if new else "",
                patch=patch,
                note=note,
            )
        )
    return records


def _changes(before: Manifest, after: Manifest) -> list[_Change]:
    old = {entry.path: entry for entry in before.entries}
    new = {entry.path: entry for entry in after.entries}
    gone = {(e.digest, e.mode): e for e in reversed(before.entries) if e.path not in new and e.size}
    found, moved = [], set()
    for path, entry in new.items():
        earlier = old.get(path)
        if earlier is None:
            source = gone.pop((entry.digest, entry.mode), None)
            moved |= {source.path} if source else set()
            found.append(_Change("renamed" if source else "added", source, entry))
        elif earlier.digest != entry.digest:
            found.append(_Change("changed", earlier, entry))
        elif earlier.mode != entry.mode:
            found.append(_Change("mode", earlier, entry))
    found += [_Change("removed", e, None) for path, e in old.items() if path not in new and path not in moved]
    return sorted(found, key=lambda change: (change.after or change.before or before.entries[0]).path)


def _patches(home: Home, found: Sequence[_Change]) -> dict[int, tuple[str, str]]:
    """The patch and the note of each changed file, by its index."""
    notes: dict[int, tuple[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="diff-", dir=home.scratch) as name:
        folder, room, files = Path(name), _MOST_BYTES, 0
        for side in ("before", "after"):
            (folder / side).mkdir()
        for index, change in enumerate(found):
            sides = {"before": change.before, "after": change.after}
            if change.kind in ("renamed", "mode") or not any(entry and entry.size for entry in sides.values()):
                continue
            sizes = [entry.size for entry in sides.values() if entry]
            if max(sizes) > MOST_FILE_BYTES:
                notes[index] = "", "too big to be shown"
            elif files >= _MOST_FILES or sum(sizes) > room:
                notes[index] = "", "left out: too much differs"
            elif not all(_copy(home, entry, folder / side / str(index)) for side, entry in sides.items() if entry):
                notes[index] = "", "its content is not kept any more"
                for side in sides:
                    (folder / side / str(index)).unlink(missing_ok=True)
            else:
                room, files = room - sum(sizes), files + 1
        if files:
            notes |= _sections(*_git(folder))
    return notes


def _copy(home: Home, entry: Entry, path: Path) -> bool:
    try:
        path.write_bytes(home.blob(entry.digest).read_bytes())
    except FileNotFoundError:
        return False
    return True


def _git(folder: Path) -> tuple[bytes, str]:
    """The output of git, and the reason if it is incomplete."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env = {
        **clean,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "LC_ALL": "C",
    }
    env["GIT_CEILING_DIRECTORIES"] = str(folder.parent)
    said = folder / "said"
    try:
        with said.open("wb") as file:
            subprocess.run(
                _GIT, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.DEVNULL,
                timeout=_LIMIT_S, check=False,
            )  # fmt: skip
    except FileNotFoundError:
        return b"", "the server's machine has no git to compare its lines"
    except subprocess.TimeoutExpired:
        return b"", "comparing its lines took too long"
    with said.open("rb") as file:
        text = file.read(_MOST_PATCH_BYTES + 1)
    return text, "left out: too much differs"


def _sections(text: bytes, otherwise: str) -> dict[int, tuple[str, str]]:
    """Hunks and note for each file, from the output of git; `otherwise` is the note for a file that is cut off."""
    found: dict[int, tuple[str, str]] = {}
    starts = list(_SECTION.finditer(text))
    for place, start in enumerate(starts):
        is_last = place == len(starts) - 1
        section = text[start.end() : None if is_last else starts[place + 1].start()]
        hunks = section.find(b"\n@@ ")
        if is_last and len(text) > _MOST_PATCH_BYTES:
            found[int(start[1])] = "", otherwise
        elif hunks < 0:
            found[int(start[1])] = "", "binary" if b"\nBinary files " in section else ""
        else:
            found[int(start[1])] = section[hunks + 1 :].decode(errors="backslashreplace"), ""
    return found
