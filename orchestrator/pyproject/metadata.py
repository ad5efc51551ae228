"""pyproject.toml without a lock: dependencies, with chosen extras and groups, and where uv's settings say they come from.

What is said only by code (setup.py, a build backend) is not read here: a project that is built says it then.

Formats: https://packaging.python.org/en/latest/specifications/pyproject-toml/ and …/dependency-groups/,
https://docs.astral.sh/uv/concepts/projects/dependencies/ for `tool.uv.sources`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator.errors import InvalidConfig
from orchestrator.pyproject import local
from orchestrator.pyproject.asked import Asked
from orchestrator.pyproject.files import CodeFiles, joined
from orchestrator.pyproject.lines import Lines, inside, requirement

_SOURCES = ("git", "url", "path", "workspace", "index")


def read(files: CodeFiles, folder: str, asked: Asked) -> Lines:
    """The dependencies of the project in a folder.

    Raises:
        InvalidConfig: something in it is wrong, or has no such group or extra.
    """
    found = Lines()
    where = joined(folder, "pyproject.toml")
    table = files.table(where)
    if "poetry" in table.get("tool", {}) and "dependencies" not in table.get("project", {}):
        raise InvalidConfig(
            f"{where} says its packages in Poetry's own form, which only Poetry understands.",
            "Make a lock, which is read: poetry lock. Or do without: --no-project",
        )
    collector = _Collector(files, found)
    collector.project(folder, asked.extras)
    for text in _chosen(all_groups(table, where), asked.groups, where):
        collector.add(text, folder, table, where)
    if is_package(table):
        found.edit(folder)
    return found


def read_script(files: CodeFiles, script: str, table: Mapping[str, Any]) -> Lines:
    """The dependencies that a script has in its header. Raises as `read`."""
    found = Lines()
    collector = _Collector(files, found)
    for text in _texts(table.get("dependencies", ()), script, "dependencies"):
        collector.add(text, script.rpartition("/")[0], table, script)
    return found


def add_project(files: CodeFiles, folder: str, extras: Iterable[str], found: Lines) -> None:
    """Add a project that a requirements file names: it becomes editable, and its dependencies are added."""
    found.edit(folder, extras)
    _Collector(files, found).project(folder, extras)


def is_package(table: Mapping[str, Any]) -> bool:
    """Whether a project is installed, as uv decides it: one without a build system is only a place for settings."""
    chosen = table.get("tool", {}).get("uv", {}).get("package")
    if table.get("tool", {}).get("poetry", {}).get("package-mode") is False:
        return False
    return bool(chosen) if chosen is not None else "build-system" in table


def is_project(table: Mapping[str, Any]) -> bool:
    """Whether a pyproject.toml is that of a project; many hold only settings of tools."""
    return "project" in table or "poetry" in table.get("tool", {}) or "dependency-groups" in table


def all_groups(table: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    """The groups of a project by their normalized names, without `include-group`."""
    groups: dict[str, Any] = {
        canonicalize_name(name): items for name, items in table.get("dependency-groups", {}).items()
    }
    old = table.get("tool", {}).get("uv", {}).get("dev-dependencies", ())
    found: dict[str, list[str]] = {name: [*_flat(groups, name, where, ())] for name in groups}
    if old:
        found["dev"] = [*found.get("dev", ()), *map(str, old)]
    return found


def _flat(groups: Mapping[str, Any], name: str, where: str, above: tuple[str, ...]) -> Iterator[str]:
    if name in above or name not in groups:
        words = f"includes itself: {' → '.join((*above, name))}" if name in above else f"has no group {name!r}"
        raise InvalidConfig(f"{where}: dependency-groups {words}.")
    if not isinstance(groups[name], list):
        raise InvalidConfig(f"{where}: dependency-groups: {name} must be a list.")
    for item in groups[name]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict) and "include-group" in item:
            yield from _flat(groups, canonicalize_name(str(item["include-group"])), where, (*above, name))


def _chosen(there: Mapping[str, list[str]], wanted: Iterable[str], where: str) -> Iterator[str]:
    for name in wanted:
        if canonicalize_name(name) not in there:
            raise missing("group", name, there, where)
        yield from there[canonicalize_name(name)]


def missing(kind: str, name: str, there: Iterable[str], where: str) -> InvalidConfig:
    """The error for a group or extra that a project does not have."""
    names = ", ".join(sorted(there))
    return InvalidConfig(f"{where} has no {kind} {name!r}.", f"It has: {names}." if names else f"It has no {kind}s.")


def _texts(value: Any, where: str, key: str) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise InvalidConfig(f"{where}: {key} must be a list of requirements.")
    return list(value)


class _Collector:
    """Collects the dependencies of a project and of those that it names by path."""

    def __init__(self, files: CodeFiles, found: Lines) -> None:
        self._files, self._found = files, found
        self._seen: set[tuple[str, str]] = set()

    def project(self, folder: str, extras: Iterable[str]) -> None:
        """Add the dependencies of the project in a folder, and of its extras."""
        where = joined(folder, "pyproject.toml")
        table = self._files.table(where) if where in self._files else {}
        project = table.get("project", {})
        dynamic = project.get("dynamic", ())
        self._all(_texts(project.get("dependencies", ()), where, "dependencies"), folder, table, where, "")
        there = project.get("optional-dependencies", {})
        known = {canonicalize_name(name): value for name, value in there.items()}
        for name in extras:
            extra = canonicalize_name(name)
            if extra in known:
                self._all(_texts(known[extra], where, name), folder, table, where, extra)
            elif "optional-dependencies" not in dynamic and table:
                raise missing("extra", name, known, where)

    def _all(self, texts: Iterable[str], folder: str, table: Mapping[str, Any], where: str, extra: str) -> None:
        if (folder, extra) not in self._seen:
            self._seen.add((folder, extra))
            for text in texts:
                self.add(text, folder, table, where)

    def add(self, text: str, folder: str, table: Mapping[str, Any], where: str) -> None:
        """Add a dependency of a project."""
        line = requirement(text, where)
        if line.url and line.url.startswith("file:"):
            raise InvalidConfig(f"{where}: {text!r} is a path of one machine.", "Name it in tool.uv.sources, by path.")
        own = table.get("project", {}).get("name", "")
        if own and canonicalize_name(line.name) == canonicalize_name(str(own)):  # extras of the project itself
            self.project(folder, line.extras)
            return
        sources = {canonicalize_name(name): value for name, value in _uv(table).get("sources", {}).items()}
        source = sources.get(canonicalize_name(line.name))
        if source is None or line.url:
            self._found.requirements.append(str(line))
            return
        for item in source if isinstance(source, list) else [source]:
            if not isinstance(item, dict) or not any(key in item for key in _SOURCES):
                raise InvalidConfig(f"{where}: tool.uv.sources: {line.name} has none of {', '.join(_SOURCES)}.")
            self._from(item, _marked(line, str(item.get("marker", ""))), folder, table, where)

    def _from(
        self, source: Mapping[str, Any], line: Requirement, folder: str, table: Mapping[str, Any], where: str
    ) -> None:
        marker = f" ; {line.marker}" if line.marker else ""
        title = f"{line.name}[{','.join(sorted(line.extras))}]" if line.extras else line.name
        if "git" in source:
            ref = next((f"@{source[key]}" for key in ("rev", "tag", "branch") if key in source), "")
            below = f"#subdirectory={source['subdirectory']}" if "subdirectory" in source else ""
            git = str(source["git"])
            self._found.requirements.append(f"{title} @ git+{git.removeprefix('git+')}{ref}{below}{marker}")
        elif "url" in source:
            below = f"#subdirectory={source['subdirectory']}" if "subdirectory" in source else ""
            self._found.requirements.append(f"{title} @ {source['url']}{below}{marker}")
        elif "path" in source:
            self._local(str(source["path"]), title, marker, line, folder, where)
        elif source.get("workspace"):
            member = self._member(line.name, where)
            self._found.edit(member, line.extras)
            self.project(member, line.extras)
        else:
            self._found.requirements.append(str(line))
            self._found.indexes.append(_index(source.get("index"), table, where))

    def _local(self, path: str, title: str, marker: str, line: Requirement, folder: str, where: str) -> None:
        place = inside(folder, path)
        if self._files.has_folder(place):
            self._found.edit(place, line.extras)
            self.project(place, line.extras)
        elif path.endswith((".whl", ".zip", ".gz", ".bz2", ".xz", ".tgz")):
            uri = Path(local.place(self._files, where, folder, path)).as_uri()
            self._found.requirements.append(f"{title} @ {uri}{marker}")
        else:
            raise InvalidConfig(f"{where}: {path!r} has no file in the code of the run.", "Is it tracked by git?")

    def _member(self, name: str, where: str) -> str:
        """The folder of a member of the workspace."""
        for path in self._files.below("", "pyproject.toml"):
            own = self._files.table(path).get("project", {}).get("name", "")
            if own and canonicalize_name(str(own)) == canonicalize_name(name):
                return path.rpartition("/")[0]
        raise InvalidConfig(f"{where}: the workspace has no member {name!r}.", "Is its pyproject.toml tracked by git?")


def _uv(table: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = table.get("tool", {}).get("uv", {})
    return found


def _marked(line: Requirement, marker: str) -> Requirement:
    if not marker:
        return line
    plain = str(line).partition(";")[0].strip()
    return Requirement(f"{plain}; ({line.marker}) and ({marker})" if line.marker else f"{plain}; {marker}")


def _index(name: Any, table: Mapping[str, Any], where: str) -> str:
    for index in _uv(table).get("index", ()):
        if index.get("name") == name:
            return str(index.get("url", ""))
    raise InvalidConfig(f"{where}: tool.uv.index has no index {name!r}.")
