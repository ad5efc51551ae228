"""Requirements as a person writes them, made independent of where they were written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import InvalidConfig
from orchestrator.spec.run import RequirementFile

_REFERENCE = r"(?m)^\s*(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)"


def located(line: str, folder: Path) -> str:
    """A requirement that is a path (`./x.whl`), made absolute: the server has another working directory."""
    return str((folder / line).absolute()) if line.startswith(("./", "../")) else line


def requirement_files(paths: Sequence[Path]) -> tuple[RequirementFile, ...]:
    """These files and those that they refer to (`-r other.txt`), each once."""
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
