"""Projects in the code of a run that are installed editable: what a build reads of them, and their copy for it.

They are built from the snapshot, in a copy, so that a build leaves nothing in the code. The key of the build covers what it
reads: metadata, files and modules that metadata names, where the packages lie, native sources. A change of other code builds nothing.
What code that takes part in the build reads (setup.py, a hook, a plugin for dynamic metadata) is unknown: then small texts count, too.
A snapshot has no history, so builds that take their version from it are told one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.content.manifest import EXECUTABLE, LINK, Entry, Manifest
from orchestrator.errors import InvalidConfig
from orchestrator.spec.requirements import PROJECT_FILES
from orchestrator.spec.run import split_editable

_METADATA = frozenset(
    {
        *(*PROJECT_FILES, "MANIFEST.in", "Cargo.toml", "Cargo.lock", "CMakeLists.txt", "meson.build", "meson.options"),
        *("meson_options.txt", "hatch_build.py", "build.py", "pdm_build.py", "PKG-INFO", ".git_archival.txt"),
    }
)
_NATIVE = (
    *(".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".hxx", ".cu", ".cuh", ".m", ".mm", ".pyx", ".pxd", ".pxi"),
    *(".rs", ".f", ".f90", ".f95", ".zig", ".cmake"),
)
_VERSION = re.compile(r"(src/)?[^/]+/(__init__|__about__|_*version_*|about)\.py\Z|_*version_*\.py\Z")
_HOOKS = ("setup.py", "hatch_build.py", "build.py", "pdm_build.py")
_HAS_HOOK = re.compile(r"hooks\.(?!vcs\b)|custom-hook|backend-path")
# A setup.py with none of these only calls setup(): it can open no file.
_MAY_READ = re.compile(
    r"\b(open|exec|eval|__import__)\b|^\s*(from|import)\s+(?!setuptools\b|distutils\b|__future__\b)", re.MULTILINE
)
_MODULE = re.compile(r"""\battr["']?\s*[=:]\s*["']?([\w.]+)|^\s*(?:from|import)\s+([\w.]+)""", re.MULTILINE)
_FROM_HISTORY = re.compile(r"[-_]scm\b|[-_]vcs\b|dynamic[-_]versioning|source\s*=\s*['\"]scm")
VERSION_VARIABLE = "SETUPTOOLS_SCM_PRETEND_VERSION"
"""The variable by which setuptools_scm, and hatch-vcs by it, are told a version; with `_FOR_NAME` for one project."""
_ALSO_TOLD = ("PDM_BUILD_SCM_VERSION", "POETRY_DYNAMIC_VERSIONING_BYPASS", "UV_DYNAMIC_VERSIONING_BYPASS")
NO_VERSION = "0.0.0"
_MOST_BYTES = 4 << 20  # a bigger file is data, which no build of an editable package reads
_SMALL_BYTES = 256 << 10  # a bigger text is no list of requirements, and tells no version
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Projects:
    """The projects of one run.

    Attributes:
        extras: the wanted extras of each, by its folder from the root of the code (".").
        content: digest of all that their build reads.
        variables: variables of the build.
        notes: remarks for the build log.
        files: what is copied for the build.
        blob: the path of a file's content, by its digest.
    """

    extras: Mapping[str, frozenset[str]]
    content: str
    variables: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...]
    files: tuple[Entry, ...] = field(repr=False)
    blob: Callable[[str], Path] = field(repr=False)

    def copy(self, root: Path) -> list[str]:
        """Write their files below `root`. Returns the paths of all files that the code has, from its root."""
        for entry in self.files:
            path = root / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            content = self.blob(entry.digest).read_bytes()
            if entry.mode == LINK:
                os.symlink(content, os.fsencode(path))
            else:
                path.write_bytes(content)
                path.chmod(0o755 if entry.mode == EXECUTABLE else 0o644)
        return [entry.path for entry in self.files]


def projects_of(
    manifest: Manifest, editables: Sequence[str], variables: Mapping[str, str], blob: Callable[[str], Path]
) -> Projects:
    """Return the projects that a spec names.

    Args:
        manifest: the files of the code.
        editables: as in the spec.
        variables: of the run; those that tell a version reach the build.
        blob: the path of a file's content, by its digest.

    Raises:
        InvalidConfig: a folder holds no project.
    """
    extras = extras_of(editables)
    found = [_Project(manifest, folder, blob) for folder in extras]
    told, notes = _told(found, variables)
    content = [told, *([project.folder, sorted(set(project.read()))] for project in found)]
    files = tuple(entry for entry in manifest.entries if _is_copied(entry, list(extras)))
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode(errors="surrogateescape")).hexdigest()
    return Projects(extras, digest, told, notes, files, blob)


def extras_of(editables: Sequence[str]) -> dict[str, frozenset[str]]:
    """The wanted extras of each project, by its folder."""
    found: dict[str, frozenset[str]] = {}
    for text in editables:
        folder, named = split_editable(text)
        more = frozenset(re.sub(r"[-_.]+", "-", name).lower() for name in named.replace(",", " ").split())
        found[folder] = found.get(folder, frozenset()) | more
    return found


class _Project:
    def __init__(self, manifest: Manifest, folder: str, blob: Callable[[str], Path]) -> None:
        self.folder = folder
        below = "" if folder == "." else f"{folder}/"
        self._files = {entry.path[len(below) :]: entry for entry in manifest.entries if entry.path.startswith(below)}
        texts = {name: blob(self._files[name].digest) for name in PROJECT_FILES if name in self._files}
        self._hooks = [
            blob(self._files[name].digest).read_text("utf-8", "replace") for name in _HOOKS if name in self._files
        ]
        if not texts:
            raise InvalidConfig(f"The run's code has no Python project in {folder!r}.", _others(manifest))
        self._texts = {name: path.read_text("utf-8", "replace") for name, path in texts.items()}
        self._table = _table(self._texts.get("pyproject.toml", ""), f"{below}pyproject.toml")
        is_one = {"project", "build-system"} & set(self._table) or "poetry" in self._table.get("tool", {})
        if not is_one and len(self._texts) == ("pyproject.toml" in self._texts):
            raise InvalidConfig(
                f"{below}pyproject.toml describes no package: it has no table [project].",
                "Without one, the folder cannot be installed. Modules below the root of the code are found anyway.",
            )

    @property
    def text(self) -> str:
        return "\n".join(self._texts.values())

    def read(self) -> Iterator[str]:
        """Yield what a build reads: paths with digests, and for packages the folder alone."""
        metadata, is_versioned = self.text, self._is_versioned_elsewhere()
        modules, is_unknown = self._modules(), self._reads_unknown()
        for path, entry in self._files.items():
            name = path.rpartition("/")[2]
            is_named = path in metadata or path in modules or (is_versioned and _VERSION.match(path))
            is_named = is_named or (is_unknown and entry.size <= _SMALL_BYTES and not name.endswith(".py"))
            if name in _METADATA or is_named or name.endswith(_NATIVE):
                yield f"{path} {entry.mode} {entry.digest}"
            elif name.endswith(".py"):
                folder = path.rpartition("/")[0]
                yield f"{folder}/" if folder not in ("", "src") else path

    def _modules(self) -> set[str]:
        """The files of modules that metadata names as the place of a value (`attr`), or that code of the build imports."""
        names = {found[1] or found[2] for found in _MODULE.finditer("\n".join((self.text, *self._hooks)))}
        parts = [name.strip(".").split(".") for name in names]
        stems = {"/".join(words[:depth]) for words in parts for depth in range(1, len(words) + 1)}
        return {path for path in self._files if path.endswith(".py") and _tails(path) & stems}

    def _reads_unknown(self) -> bool:
        """Whether its build may read files that are named nowhere."""
        told = _within(self._table, "project", "dynamic")
        dynamic = set(map(str, told)) if isinstance(told, list) else set()
        places = (("setuptools", "dynamic", "version"), ("hatch", "version"))
        if any(_within(self._table, "tool", *names) for names in places) or _FROM_HISTORY.search(self.text):
            dynamic.discard("version")  # its place is named, or it is in the history
        return bool(dynamic or _HAS_HOOK.search(self.text) or any(map(_MAY_READ.search, self._hooks)))

    def _is_versioned_elsewhere(self) -> bool:
        project = self._table.get("project", {})
        return "version" not in project or len(self._texts) > 1


def _within(table: Any, *names: str) -> Any:
    """The value at this place of a table; None if there is none."""
    for name in names:
        table = table.get(name) if isinstance(table, dict) else None
    return table


def _tails(path: str) -> set[str]:
    """What names of modules a file may have, with slashes, as its root is any folder: src/x/meta.py is src/x/meta, x/meta, meta."""
    words = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return {"/".join(words[start:]) for start in range(len(words))}


def _is_copied(entry: Entry, folders: Sequence[str]) -> bool:
    name = entry.path.rpartition("/")[2]
    is_inside = "." in folders or any(entry.path.startswith(f"{folder}/") for folder in folders)
    return name in _METADATA or (is_inside and (entry.size <= _MOST_BYTES or name.endswith(_NATIVE)))


def _table(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise InvalidConfig(f"{name} cannot be read: {error}") from error


def _told(projects: Sequence[_Project], variables: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return variables that tell builds a version, and remarks on it."""
    given = {
        name: value for name, value in variables.items() if name.startswith(VERSION_VARIABLE) or name in _ALSO_TOLD
    }
    asking = [project for project in projects if _FROM_HISTORY.search(project.text) and "fallback" not in project.text]
    if not asking or given:
        return given, ()
    note = f"The version is taken as {NO_VERSION}, because a run's code has no history. Give another one: -e {VERSION_VARIABLE}=1.2.3"
    return dict.fromkeys((VERSION_VARIABLE, *_ALSO_TOLD), NO_VERSION), (note,)


def _others(manifest: Manifest) -> str:
    paths = [entry.path.rpartition("/") for entry in manifest.entries]
    found = list(dict.fromkeys(folder or "." for folder, _, name in paths if name in ("pyproject.toml", "setup.py")))
    if not found:
        return "It has neither a pyproject.toml nor a setup.py."
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f"There is one in {', '.join(map(repr, found[:_MOST_NAMED]))}{more}."
