"""Finds the projects of the run's code that are to be installed editable: typed ones, and those that requirements name.

A folder of the code is always taken from the snapshot, never from the work tree as it is when the environment is built.
What such a project needs from other folders (`[tool.uv.sources]`, path dependencies of Poetry) comes with it.
"""

from __future__ import annotations

import os
import posixpath
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from orchestrator.capture.snapshot import Snapshot
from orchestrator.errors import InvalidConfig
from orchestrator.spec.requirements import EDITABLE, PROJECT_FILES, logical_lines, replaced, split_option
from orchestrator.spec.run import RequirementFile, RunSpec

_NAMED = re.compile(r"([\w.-]+)\s*(?P<extras>\[[^\]]*\])?\s*@\s*(?P<place>file:\S+)(\s*;.*)?\Z")
_PLACE = re.compile(r"(?P<place>[^\[\];#]+?)(?P<extras>\[[^\]]*\])?(\s*;.*)?\Z")


def with_editables(spec: RunSpec, code: Snapshot | None) -> RunSpec:
    """The spec with folders from the root of the code, where lines of requirements and `--editable` name folders.

    Raises:
        InvalidConfig: `--editable` names a folder that is not in the code.
    """
    names_one = spec.editables or spec.requirements or any("/" in line or line.startswith(".") for line in spec.pip)
    if code is None or not names_one:
        return spec
    inside = Folders(code)
    found = [inside.typed(text) for text in spec.editables]
    files = tuple(_without_folders(file, inside, found) for file in spec.requirements)
    lines = []
    for line in spec.pip:
        if text := inside.of_line("", line):
            found.append(text)
        else:
            lines.append(line)
    if not found:
        return spec
    sources = list(inside.sources_of(found))
    return replace(spec, pip=(*lines, *sources), requirements=files, editables=tuple(dict.fromkeys(found)))


def _without_folders(file: RequirementFile, inside: Folders, found: list[str]) -> RequirementFile:
    """The file without the lines that name folders of the code, which are added to `found`. Lines keep their numbers."""
    targets = {}
    for line in logical_lines(file.text):
        option, value = split_option(line.text) if line.text.startswith("-") else ("", line.text)
        if option in ("", *EDITABLE) and (text := inside.of_line(option, value)):
            found.append(text)
            targets[line.number] = f"# installed editable: {text}"
    return replace(file, text=replaced(file.text, targets)) if targets else file


class Folders:
    """The folders of a run's code, and the projects in them."""

    def __init__(self, code: Snapshot) -> None:
        self._code, self._subdir = code, code.code.subdir
        self._entries = {entry.path: entry for entry in code.manifest.entries}
        here = Path(os.path.realpath(Path.cwd()))
        depth = len(self._subdir.split("/")) if self._subdir else 0
        self._root = here.parents[depth - 1] if depth else here

    def typed(self, text: str) -> str:
        """The project that `--editable` names, a folder from the one in which the command works."""
        folder, bracket, extras = text.partition("[")
        path = self._from_root(folder) if os.path.isabs(folder) else self._below(folder)
        if path is None:
            words = f"--editable {text}: the folder is not in the run's code."
            raise InvalidConfig(words, f"A folder elsewhere is installed as it is now by: --pip {folder}")
        return path + bracket + extras

    def of_line(self, option: str, value: str) -> str:
        """The project that a line of requirements names, with its extras; "" if it names none of the code."""
        match = _NAMED.match(value) or (None if "://" in value or "@" in value else _PLACE.match(value))
        if match is None:
            return ""
        place, extras = match["place"].strip(), match["extras"] or ""
        place = unquote(urlsplit(place).path) if place.startswith("file:") else os.path.expanduser(place)
        is_path = bool(option) or "/" in place or place in (".", "..")
        path = self._from_root(place) if os.path.isabs(place) else self._below(place) if is_path else None
        return path + extras if path is not None and self._is_project(path) else ""

    def project_at(self, path: Path) -> str:
        """The folder of the project in the code that is at this path of the work tree; "" for none."""
        found = self._from_root(str(path))
        return found if found is not None and self._is_project(found) else ""

    def _from_root(self, place: str) -> str | None:
        path = os.path.relpath(os.path.realpath(place), self._root)
        return None if self._code.code.url or path.startswith("..") else path

    def _below(self, folder: str) -> str | None:
        path = posixpath.normpath(posixpath.join(self._subdir, folder))
        return None if path.startswith("..") else path

    def _is_project(self, folder: str) -> bool:
        return any(posixpath.normpath(f"{folder}/{name}") in self._entries for name in PROJECT_FILES)

    def sources_of(self, found: list[str]) -> Iterator[str]:
        """Yield requirement lines of what these projects need from repositories; folders of the code are added to `found`."""
        seen = {text.partition("[")[0] for text in found}
        for text in found:  # which grows
            folder = text.partition("[")[0]
            for name, source in self._sources(folder):
                if line := _line(name, source):
                    yield line
                other = self._member(name) if source.get("workspace") else _beside(folder, source.get("path"))
                if other and other not in seen and self._is_project(other):
                    seen.add(other)
                    found.append(other)

    def _sources(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the sources that a project, or the workspace it is in, gives for packages."""
        own = self._table(folder)
        tables = [own, self._table(".")] if folder != "." else [own]
        needed = {_canonical(re.split(r"[^\w.-]", line.strip())[0]) for line in _needs(own)}
        for table in reversed(tables):
            for name, source in _table_of(table, "tool", "uv", "sources").items():
                if _canonical(name) in needed and isinstance(source, dict):
                    yield name, source
        for name, source in _table_of(own, "tool", "poetry", "dependencies").items():
            if isinstance(source, dict) and "path" in source:
                yield name, {"path": source["path"]}

    def _member(self, name: str) -> str:
        for path in self._entries:
            if path.rpartition("/")[2] == "pyproject.toml":
                folder = posixpath.dirname(path) or "."
                if _canonical(str(_table_of(self._table(folder), "project").get("name", ""))) == _canonical(name):
                    return folder
        return ""

    def _table(self, folder: str) -> dict[str, Any]:
        entry = self._entries.get(posixpath.normpath(f"{folder}/pyproject.toml"))
        if entry is None:
            return {}
        with self._code.open_blob(entry.digest) as file:
            try:
                return tomllib.loads(file.read().decode())
            except ValueError as error:
                raise InvalidConfig(f"{entry.path} cannot be read: {error}") from error


def _needs(table: dict[str, Any]) -> Sequence[str]:
    project = _table_of(table, "project")
    optional = [line for lines in _table_of(project, "optional-dependencies").values() for line in lines]
    return [*project.get("dependencies", ()), *optional]


def _table_of(table: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        inner = table.get(name)
        table = inner if isinstance(inner, dict) else {}
    return table


def _beside(folder: str, path: Any) -> str:
    joined = posixpath.normpath(posixpath.join(folder, path)) if isinstance(path, str) else ".."
    return "" if joined.startswith(("..", "/")) else joined


def _line(name: str, source: dict[str, Any]) -> str:
    if "git" in source:
        ref = next((source[key] for key in ("rev", "tag", "branch") if key in source), "")
        subdirectory = f"#subdirectory={source['subdirectory']}" if "subdirectory" in source else ""
        return f"{name} @ git+{source['git']}{f'@{ref}' if ref else ''}{subdirectory}"
    return f"{name} @ {source['url']}" if "url" in source else ""


def _canonical(name: str) -> str:
    # As packaging.utils has it, whose import takes longer than all that is done here; https://peps.python.org/pep-0503/
    return re.sub(r"[-_.]+", "-", name).lower()
