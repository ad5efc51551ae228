"""pylock.toml: https://packaging.python.org/en/latest/specifications/pylock-toml/ (PEP 751).

Its packages become requirement lines, so that others can be added to them: uv installs a pylock.toml with nothing beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.markers import InvalidMarker, Marker
from packaging.utils import canonicalize_name

from orchestrator.errors import InvalidConfig
from orchestrator.pyproject import local
from orchestrator.pyproject.asked import Asked
from orchestrator.pyproject.files import CodeFiles
from orchestrator.pyproject.lines import Lines, inside
from orchestrator.pyproject.metadata import missing
from orchestrator.pyproject.platforms import counts, environments, fits

_VERSION = "1"
_AGAIN = "Make it again for this machine, for example: uv export --format pylock.toml -o pylock.toml"


def read(files: CodeFiles, path: str, asked: Asked, python: str) -> Lines:
    """The packages of a lock.

    Raises:
        InvalidConfig: it is of another format, for another platform, or lacks something.
    """
    table = files.table(path)
    if str(table.get("lock-version", "")).partition(".")[0] != _VERSION or not isinstance(table.get("packages"), list):
        raise InvalidConfig(f"{path} has no lock-version 1 and packages, so it is no pylock.toml.", _AGAIN)
    where = environments(python)
    markers = [str(marker) for marker in table.get("environments", ())]
    if markers and not any(counts(marker, where) for marker in markers):
        raise InvalidConfig(f"{path} is for another platform or Python: {' or '.join(markers)}.", _AGAIN)
    reader = _Reader(files, path, where, _chosen(table, asked, path))
    for package in table["packages"]:
        reader.add(package)
    return reader.found


def requires(table: Mapping[str, Any]) -> str:
    """The versions of Python that a lock is for."""
    return str(table.get("requires-python", ""))


def _chosen(table: Mapping[str, Any], asked: Asked, path: str) -> dict[str, frozenset[str]]:
    chosen: dict[str, frozenset[str]] = {}
    for key, kind, names in (("extras", "extra", asked.extras), ("dependency-groups", "group", asked.groups)):
        there = {canonicalize_name(str(name)) for name in table.get(key, ())}
        for name in names:
            if canonicalize_name(name) not in there:
                raise missing(kind, name, there, path)
        chosen[key.replace("-", "_")] = frozenset(canonicalize_name(name) for name in names)
    chosen["dependency_groups"] |= {canonicalize_name(str(name)) for name in table.get("default-groups", ())}
    return chosen


class _Reader:
    def __init__(
        self, files: CodeFiles, path: str, where: list[dict[str, str]], chosen: Mapping[str, frozenset[str]]
    ) -> None:
        self.found = Lines()
        self._files, self._path, self._where, self._chosen = files, path, where, chosen
        self._folder = os.path.dirname(path)

    def add(self, package: Mapping[str, Any]) -> None:
        """Add one package, if it counts here."""
        if not isinstance(package, dict) or "name" not in package:
            raise InvalidConfig(f"{self._path} has a package without a name.", _AGAIN)
        marker = self._marker(str(package.get("marker", "")))
        if marker is None:
            return
        name, end = str(package["name"]), f" ; {marker}" if marker else ""
        if "directory" in package:
            if counts(marker, self._where):
                self.found.edit(inside(self._folder, str(package["directory"].get("path", "."))))
        elif "vcs" in package:
            self.found.requirements.append(f"{name} @ {_repository(package['vcs'])}{end}")
        elif "archive" in package:
            archive = package["archive"]
            self.found.requirements.append(f"{name} @ {self._url(archive)}{end}{_hashes([archive])}")
        elif "version" in package:
            self._version(package, name, marker, end)
        else:
            raise InvalidConfig(f"{self._path} does not say where {name} comes from.", _AGAIN)

    def _version(self, package: Mapping[str, Any], name: str, marker: str, end: str) -> None:
        wheels, sdist = package.get("wheels", ()), package.get("sdist")
        mine = [item for item in wheels if fits(_file(item))]
        if wheels and not mine and not sdist and counts(marker, self._where):
            raise InvalidConfig(f"{self._path} has {name} for other platforms only: {_file(wheels[0])}.", _AGAIN)
        found = [*mine, *([sdist] if sdist else [])]
        self.found.requirements.append(f"{name}=={package['version']}{end}{_hashes(found)}")
        folders = {os.path.dirname(self._place(item)) for item in found if _is_local(item)}
        self.found.links += sorted(folders)
        index = str(package.get("index", ""))
        if index and "://" in index and not index.startswith("file:"):
            self.found.indexes.append(index)

    def _marker(self, text: str) -> str | None:
        """The marker of a package; None if it is not chosen."""
        if "extras" not in text and "dependency_groups" not in text:
            return text
        try:
            marker = Marker(text)
        except InvalidMarker as error:
            raise InvalidConfig(f"{self._path}: {text!r} is not a marker: {error}".replace("\n", " ")) from None
        values: list[dict[str, Any]] = [{**where, **self._chosen} for where in self._where]
        return "" if any(marker.evaluate(value, context="lock_file") for value in values) else None

    def _url(self, item: Mapping[str, Any]) -> str:
        return Path(self._place(item)).as_uri() if _is_local(item) else str(item.get("url", ""))

    def _place(self, item: Mapping[str, Any]) -> str:
        return local.place(self._files, self._path, self._folder, str(item.get("path") or item["url"]))


def _is_local(item: Mapping[str, Any]) -> bool:
    return "path" in item or str(item.get("url", "")).startswith("file:")


def _repository(vcs: Mapping[str, Any]) -> str:
    below = f"#subdirectory={vcs['subdirectory']}" if "subdirectory" in vcs else ""
    return f"{vcs.get('type', 'git')}+{vcs.get('url') or vcs.get('path')}@{vcs.get('commit-id', '')}{below}"


def _file(item: Mapping[str, Any]) -> str:
    whole = str(item.get("name") or item.get("url") or item.get("path") or "")
    return whole.partition("#")[0].rpartition("/")[2].replace("%2B", "+")


def _hashes(items: Iterable[Mapping[str, Any]]) -> str:
    known = [item["hashes"] for item in items if isinstance(item.get("hashes"), dict)]
    return "".join(f" --hash={kind}:{value}" for hashes in known for kind, value in hashes.items())
