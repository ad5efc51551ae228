"""Reads requirement files, so that a spec has their text and not their place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import InvalidConfig
from orchestrator.spec.run import RequirementFile

_REFERENCE = r"(?m)^\s*(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)"


def requirement_files(paths: Sequence[Path]) -> tuple[RequirementFile, ...]:
    """These files, and the files that they refer to (`-r other.txt`), each once."""
    todo, found = list(paths), {}
    while todo:
        path = todo.pop(0)
        if path not in found:
            found[path] = _requirement_file(path)
            names = re.findall(_REFERENCE, found[path].text)
            todo += [path.parent / name for name in names if "://" not in name]
    return tuple(found.values())


def _requirement_file(path: Path) -> RequirementFile:
    try:
        return RequirementFile(path.name, path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} cannot be read: {getattr(error, 'strerror', error)}.") from error
