"""Reads the file that was found, with the module of its kind."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from orchestrator.errors import InvalidConfig
from orchestrator.pyproject import (
    conda,
    metadata,
    other_locks,
    pylock,
    pythons,
    requirements,
    script,
    uv_lock,
)
from orchestrator.pyproject.files import CodeFiles, joined
from orchestrator.pyproject.found import Found
from orchestrator.pyproject.lines import Lines
from orchestrator.pyproject.platforms import environments

if TYPE_CHECKING:
    from orchestrator.pyproject.find import Wanted

_OTHER_LOCKS = ("poetry.lock", "Pipfile.lock", "pdm.lock")
_CONDA = ("environment.yml", "environment.yaml")


def resolve(files: CodeFiles, wanted: Wanted, name: str, folders: list[str]) -> Found | None:
    """The environment that the code says; None if it says none.

    Args:
        name: the script with metadata that the command names; "" for none.
        folders: those that count, the first one first.

    Raises:
        InvalidConfig: what it says is wrong.
    """
    reader = _Reader(files, wanted, folders)
    if name:
        return reader.script(name)
    for folder in folders:
        where = joined(folder, "pyproject.toml")
        table = files.table(where) if where in files else {}
        if table.get("tool", {}).get("spell", {}).get("environment") is False:
            return None
        if found := reader.folder(folder, table):
            return found
    return reader.python_only()


class _Reader:
    def __init__(self, files: CodeFiles, wanted: Wanted, folders: list[str]) -> None:
        self._files, self._wanted = files, wanted
        self._pin = pythons.pinned(files, folders)

    def folder(self, folder: str, table: Mapping[str, Any]) -> Found | None:
        """The environment that the files of one folder say; None if they say none."""
        files, wanted = self._files, self._wanted

        def there(name: str) -> str:
            path = joined(folder, name)
            return path if path in files else ""

        asked, says = wanted.asked, str(table.get("project", {}).get("requires-python", ""))
        root = folder if there("uv.lock") else _workspace(files, folder, table)
        if root is not None:
            return self._uv(root, folder, table)
        if path := there("pylock.toml"):
            python = self._python(_both(pylock.requires(files.table(path)), says), path)
            return self._found(path, pylock.read(files, path, asked, python or wanted.python), python, is_exact=True)
        for name in _OTHER_LOCKS:
            if path := there(name):
                lines = other_locks.read(files, path, asked)
                return self._found(
                    path, lines, self._python(_both(other_locks.requires(path, files), says), path), is_exact=True
                )
        if path := there("requirements.txt"):
            self._refuse_choice(path)
            lines, texts = requirements.read(files, path, wanted.env)
            return self._found(path, lines, self._python(says, joined(folder, "pyproject.toml")), texts)
        if metadata.is_project(table):
            path = joined(folder, "pyproject.toml")
            return self._found(path, metadata.read(files, folder, asked), self._python(says, path))
        for name in _CONDA:
            if path := there(name):
                self._refuse_choice(path)
                lines, python = conda.read(files, path)
                wish = (
                    python
                    if python and not self._wanted.python and not self._wanted.has_image
                    else self._python("", path)
                )
                return self._found(path, lines, wish)
        return None

    def script(self, name: str) -> Found:
        """The environment of a script with metadata."""
        files, table = self._files, script.metadata(self._files, name)
        self._refuse_choice(name)
        says = str(table.get("requires-python", ""))
        lock = f"{name}.lock"
        if lock not in files:
            return self._found(name, metadata.read_script(files, name, table), self._python(says, name))
        locked = uv_lock.table(files, lock)
        uv_lock.check_script(lock, locked, [str(item) for item in table.get("dependencies", ())])
        python = self._python(_both(uv_lock.requires(locked), says), lock)
        return self._found(lock, uv_lock.read_script(files, locked, name, python), python, is_exact=True)

    def python_only(self) -> Found | None:
        """An environment without packages, if a version of Python is said."""
        if not self._pin[0] or self._wanted.python or self._wanted.has_image:
            return None
        return Found(self._pin[1], python=self._pin[0])

    def _uv(self, root: str, folder: str, table: Mapping[str, Any]) -> Found:
        path = joined(root, "uv.lock")
        if not table:
            raise InvalidConfig(
                f"{path} has no pyproject.toml beside it in the code of the run.",
                "Is it tracked by git? Or do without: --no-project",
            )
        says = str(table.get("project", {}).get("requires-python", ""))
        self._refuse_extras(table, joined(folder, "pyproject.toml"))
        lock = uv_lock.table(self._files, path)
        python = self._python(_both(uv_lock.requires(lock), says), path)
        lines = uv_lock.read(self._files, lock, root, folder, self._wanted.asked, python or self._wanted.python)
        return self._found(path, lines, python, is_exact=True)

    def _refuse_extras(self, table: Mapping[str, Any], where: str) -> None:
        """uv's words for a group that does not exist name no others."""
        if "project" not in table:
            return
        extras = {canonicalize_name(name) for name in table["project"].get("optional-dependencies", {})}
        groups = set(metadata.all_groups(table, where))
        for kind, names, known in (
            ("extra", self._wanted.asked.extras, extras),
            ("group", self._wanted.asked.groups, groups),
        ):
            for name in names:
                if canonicalize_name(name) not in known and not (kind == "extra" and "dynamic" in table["project"]):
                    raise metadata.missing(kind, name, known, where)

    def _refuse_choice(self, path: str) -> None:
        asked = self._wanted.asked
        if asked.groups or asked.extras:
            option = f"--group {asked.groups[0]}" if asked.groups else f"--extra {asked.extras[0]}"
            raise InvalidConfig(f"{path} has no groups or extras to choose from by {option}.", "Leave the option out.")

    def _python(self, requires: str, where: str) -> str:
        if self._wanted.has_image and not self._wanted.python:
            return ""  # the image brings its Python
        return pythons.choose(self._wanted.python, self._pin, requires, where)

    def _found(
        self,
        path: str,
        lines: Lines,
        python: str,
        texts: list[tuple[str, str]] | None = None,
        *,
        is_exact: bool = False,
    ) -> Found:
        editables = tuple(
            f"{folder}[{','.join(sorted(extras))}]" if extras else folder for folder, extras in lines.editables.items()
        )
        if texts is None:
            text = lines.text()
            texts = [(f"{path}.txt", text)] if text else []
        count = lines.count(environments(python))
        return Found(path, tuple(texts), editables, python, count, is_exact)


def _both(one: str, other: str) -> str:
    return ",".join(dict.fromkeys(text for text in (one, other) if text))


def _workspace(files: CodeFiles, folder: str, table: Mapping[str, Any]) -> str | None:
    """The folder above this one with the lock of a uv workspace that this project is a member of; None for no such folder."""
    if "project" not in table:
        return None
    above = folder
    while above:
        above = posixpath.dirname(above)
        if joined(above, "uv.lock") not in files or joined(above, "pyproject.toml") not in files:
            continue
        workspace = files.table(joined(above, "pyproject.toml")).get("tool", {}).get("uv", {}).get("workspace", {})
        inner = folder.removeprefix(f"{above}/") if above else folder
        if _is_any(inner, workspace.get("members", ())) and not _is_any(inner, workspace.get("exclude", ())):
            return above
    return None


def _is_any(path: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(path, pattern.removeprefix("./").rstrip("/")) for pattern in patterns)
