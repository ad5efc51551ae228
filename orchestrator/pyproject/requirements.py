"""requirements.txt of the code, with the files that it refers to. Their names are their paths from the root of the code, so
that each reference means what it says.

A folder that a line names (`-e .`, `./lib`) becomes editable, and what it needs is added; an archive is taken from the work
tree of this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import InvalidConfig
from orchestrator.pyproject import local
from orchestrator.pyproject.files import CodeFiles
from orchestrator.pyproject.lines import Lines, inside
from orchestrator.pyproject.metadata import add_project
from orchestrator.spec.requirements import (
    EDITABLE,
    PROJECT_FILES,
    REFERENCES,
    Line,
    beside,
    filled,
    logical_lines,
    names_path,
    split_option,
)

_TARGET = re.compile(r"(?P<path>[^\s;\[#]+)(\[(?P<extras>[^\]]*)\])?(?P<rest>.*)", re.DOTALL)
_PROJECTS = "projects.txt"


def read(files: CodeFiles, path: str, env: Mapping[str, str]) -> tuple[Lines, list[tuple[str, str]]]:
    """What they say, and the texts of the files; `Lines.requirements` has all requirement lines.

    Args:
        env: the run's variables, for `${NAME}` in references.

    Raises:
        InvalidConfig: a file is missing, or a line names what the run does not have.
    """
    found, texts = Lines(), {}
    todo = [path]
    of_projects = Lines()
    while todo:
        name = todo.pop(0)
        if name in texts:
            continue
        kept: list[str] = []
        for line in logical_lines(files.text(name)):
            kept += [""] * (line.number - 1 - len(kept))  # so that messages name the right line
            kept.append(_line(files, name, line, of_projects, env, todo))
        texts[name] = "".join(f"{text}\n" for text in kept)
        found.requirements += [text for text in kept if text and (text[0] != "-" or split_option(text)[0] in EDITABLE)]
    found.editables = of_projects.editables
    found.requirements += of_projects.requirements
    if own := of_projects.text():
        texts[_PROJECTS] = own
    return found, list(texts.items())


def _line(files: CodeFiles, name: str, line: Line, projects: Lines, env: Mapping[str, str], todo: list[str]) -> str:
    text = line.text
    option, value = split_option(text) if text.startswith("-") else ("", text)
    where = f"{name}, line {line.number}"
    if option in REFERENCES and "://" not in value:
        other = beside(name, filled(value, env))
        if os.path.isabs(filled(value, env)) or other not in files:
            raise InvalidConfig(
                f"{where}: It refers to {value!r}, which is not in the code of the run.",
                "Is it tracked by git? Or give the file yourself: --pip-req " + name,
            )
        todo.append(other)
    if not names_path(option, value):
        return text
    parts = _TARGET.match(value)
    assert parts is not None  # `names_path` has seen a path
    folder, target = os.path.dirname(name), parts["path"]
    if option in ("-f", "--find-links"):
        return f"{option} {local.place(files, where, folder, target)}"
    place = inside("", target)  # pip starts from the current folder; most people mean both
    if not files.has_folder(place) or not _is_project(files, place):
        place = inside(folder, target)
    if files.has_folder(place) and _is_project(files, place):
        extras = [extra.strip() for extra in (parts["extras"] or "").split(",") if extra.strip()]
        add_project(files, place, extras, projects)
        return ""
    if option in EDITABLE or not Path(target).suffix:
        raise InvalidConfig(
            f"{where}: There is no project {target!r} in the code of the run.",
            "It needs a pyproject.toml or setup.py that is tracked by git.",
        )
    return f"{Path(local.place(files, where, folder, target)).as_uri()}{parts['rest']}"


def _is_project(files: CodeFiles, folder: str) -> bool:
    return any(inside(folder, name) in files for name in PROJECT_FILES)
