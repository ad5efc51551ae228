"""poetry.lock, Pipfile.lock and pdm.lock: read as far as each says by itself which packages belong where, else refused with
the command that exports it. uv reads none of them.

Formats: poetry-core's `packages.locker` (2.1, the first with the groups and markers of each package), pipenv's `Pipfile.lock`
(version 6 of its specification), and pdm's `pdm.lock` (4.5).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from packaging.markers import InvalidMarker, Marker
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from orchestrator.errors import InvalidConfig
from orchestrator.pyproject.asked import Asked
from orchestrator.pyproject.files import CodeFiles, joined
from orchestrator.pyproject.lines import Lines, inside, marker_of, named, requirement
from orchestrator.pyproject.metadata import is_package, missing
from orchestrator.pyproject.platforms import environments, fits

_EXPORT = {
    "poetry.lock": "poetry export -o requirements.txt",
    "pdm.lock": "pdm export -o requirements.txt",
    "Pipfile.lock": "pipenv requirements > requirements.txt",
}
_LOCK = {"poetry.lock": "poetry lock", "pdm.lock": "pdm lock", "Pipfile.lock": "pipenv lock"}


def read(files: CodeFiles, path: str, asked: Asked) -> Lines:
    """The packages of a lock.

    Raises:
        InvalidConfig: it is of a format that does not say enough, or does not match its project.
    """
    name = os.path.basename(path)
    found = _pipfile(files, path, asked) if name == "Pipfile.lock" else _toml(files, path, name, asked)
    where = joined(os.path.dirname(path), "pyproject.toml")
    if name != "Pipfile.lock" and where in files:
        table = files.table(where)
        _check_match(found, path, where, table.get("project", {}), _LOCK[name])
        if is_package(table):
            found.edit(os.path.dirname(path))
    return found


def requires(path: str, files: CodeFiles) -> str:
    """The versions of Python that a lock is for."""
    if path.endswith("Pipfile.lock"):
        wanted = _json(files, path).get("_meta", {}).get("requires", {})
        version = wanted.get("python_full_version") or wanted.get("python_version") or ""
        return (
            f"=={version}.*" if version and "python_full_version" not in wanted else f"=={version}" if version else ""
        )
    metadata = files.table(path).get("metadata", {})
    text = str(metadata.get("python-versions") or metadata.get("requires_python") or "")
    if not text and metadata.get("targets"):
        text = str(metadata["targets"][0].get("requires_python", ""))
    try:
        SpecifierSet(text)
    except InvalidSpecifier:  # `^3.9`, which pyproject.toml says too
        return ""
    return "" if text == "*" else text


def _toml(files: CodeFiles, path: str, name: str, asked: Asked) -> Lines:
    table, found = files.table(path), Lines()
    packages = table.get("package", [])
    is_poetry = name == "poetry.lock"
    version = str(table.get("metadata", {}).get("lock-version" if is_poetry else "lock_version", ""))
    is_old = version == "2.0" or (is_poetry and not version.startswith("2."))
    if is_old or (packages and "groups" not in packages[0]):
        what = "Poetry 2" if is_poetry else "PDM 2.17"
        raise InvalidConfig(
            f"{path} (of version {version or 'unknown'}) does not say which packages belong to which group and platform.",
            f"Make it again with {what}: {_LOCK[name]}. Or write what is read, too: {_EXPORT[name]}",
        )
    main = "main" if is_poetry else "default"
    there = {str(group) for package in packages for group in package.get("groups", ())} - {main}
    chosen = {main, *_known("group", asked.groups, there, path)}
    extras: Iterable[str] = asked.extras
    if is_poetry:
        extras = [*_known("extra", extras, {str(name) for name in table.get("extras", {})}, path)]
    else:  # PDM has them as groups
        chosen |= set(_known("extra", extras, there, path))
    for package in packages:
        if chosen & set(package.get("groups", ())):
            _add(files, path, found, package, chosen, [canonicalize_name(name) for name in extras])
    return found


def _known(kind: str, names: Iterable[str], there: Iterable[str], path: str) -> Iterable[str]:
    for name in names:
        if name not in there:
            raise missing(kind, name, there, path)
        yield name


def _add(
    files: CodeFiles, path: str, found: Lines, package: Mapping[str, Any], chosen: set[str], extras: Iterable[str]
) -> None:
    name, source, folder = str(package["name"]), package.get("source", {}), os.path.dirname(path)
    marker = _marker(package, chosen, extras)
    if marker is None:
        return
    end = f" ; {marker}" if marker else ""
    kind = source.get("type", "")
    if kind == "directory" or package.get("path", "").startswith("."):
        found.edit(inside(folder, str(source.get("url") or package["path"])))
    elif kind == "git" or "git" in package:
        commit = source.get("resolved_reference") or package.get("revision", "")
        found.requirements.append(f"{name} @ git+{source.get('url') or package['git']}@{commit}{end}")
    elif kind == "url" or "url" in package:
        found.requirements.append(f"{name} @ {source.get('url') or package['url']}{end}")
    elif kind == "file":
        raise InvalidConfig(
            f"{path}: {name} is a file of one machine.", f"Give it yourself: {_EXPORT[os.path.basename(path)]}"
        )
    else:
        hashes = [str(item["hash"]) for item in package.get("files", ()) if fits(_file(item)) and "hash" in item]
        if package.get("files") and not hashes:
            raise InvalidConfig(
                f"{path} has {name} for other platforms only.", f"Make it again: {_LOCK[os.path.basename(path)]}"
            )
        found.requirements.append(f"{name}=={package['version']}{end}" + "".join(f" --hash={item}" for item in hashes))
        if kind == "legacy":
            found.indexes.append(str(source["url"]))


def _marker(package: Mapping[str, Any], chosen: set[str], extras: Iterable[str]) -> str | None:
    """The marker of a package; None if it is only for extras that are not chosen."""
    marker = package.get("markers", package.get("marker", ""))
    if isinstance(marker, dict):  # of each group
        own = [str(marker.get(group, "")) for group in package.get("groups", ()) if group in chosen]
        marker = "" if "" in own else " or ".join(f"({text})" for text in own)
    if not re.search(r"\bextra\b", marker):
        return str(marker)
    try:
        parsed = Marker(marker)
    except InvalidMarker:
        return str(marker)
    wanted = [{**where, "extra": extra} for where in environments("") for extra in (*extras, "")]
    return "" if any(parsed.evaluate(values) for values in wanted) else None


def _file(item: Mapping[str, Any]) -> str:
    return str(item.get("file") or item.get("url") or "").partition("#")[0].rpartition("/")[2]


def _check_match(found: Lines, path: str, where: str, project: Mapping[str, Any], cure: str) -> None:
    """Refuse a lock without a package that its project asks for, or with a version that it does not allow."""
    pinned = {named(line): line for line in found.requirements}
    for text in project.get("dependencies", ()):
        wanted = requirement(str(text), where)
        line = pinned.get(canonicalize_name(wanted.name))
        if line is None and (wanted.marker or wanted.url or found.editables):
            continue
        version = line.partition("==")[2].split(" ")[0] if line and "==" in line.partition(" ;")[0] else ""
        try:
            is_fine = line is not None and (
                not version or wanted.specifier.contains(Version(version), prereleases=True)
            )
        except InvalidVersion:
            is_fine = True
        if not is_fine:
            has = f"but the lock has {version}" if line else "which the lock does not have"
            raise InvalidConfig(
                f"{path} does not match {where}, which asks for {wanted}, {has}.",
                f"Make the lock again: {cure}. Or do without: --no-project",
            )


# -- Pipfile.lock -----------------------------------------------------------------------------------------------------


def _json(files: CodeFiles, path: str) -> dict[str, Any]:
    try:
        found = json.loads(files.text(path))
    except ValueError as error:
        raise InvalidConfig(f"{path} cannot be read: {error}.", "Make it again: pipenv lock") from None
    if not isinstance(found, dict) or not isinstance(found.get("default"), dict):
        raise InvalidConfig(f"{path} is no lock of pipenv.", "Make it again: pipenv lock")
    return found


def _pipfile(files: CodeFiles, path: str, asked: Asked) -> Lines:
    lock, found, folder = _json(files, path), Lines(), os.path.dirname(path)
    categories = {"dev" if key == "develop" else key: value for key, value in lock.items() if key != "_meta"}
    if asked.extras:
        raise missing("extra", asked.extras[0], (), path)
    names = ["default", *_known("group", asked.groups, set(categories) - {"default"}, path)]
    indexes = {str(item.get("name")): str(item.get("url")) for item in lock.get("_meta", {}).get("sources", ())}
    for name, package in ((name, package) for group in names for name, package in categories[group].items()):
        title = name + (f"[{','.join(package['extras'])}]" if package.get("extras") else "")
        end = f" ; {package['markers']}" if package.get("markers") else ""
        if "path" in package:
            found.edit(inside(folder, str(package["path"])), package.get("extras", ()))
        elif "git" in package:
            found.requirements.append(f"{title} @ git+{package['git']}@{package.get('ref', '')}{end}")
        elif "file" in package:
            found.requirements.append(f"{title} @ {package['file']}{end}")
        else:
            hashes = "".join(f" --hash={item}" for item in package.get("hashes", ()))
            version = str(package.get("version", "")).removeprefix(
                "*"
            )  # of one that is not for the platform of the lock
            found.requirements.append(f"{title}{version}{end}{hashes}")
            if package.get("index") in indexes:
                found.indexes.append(indexes[package["index"]])
    _check_pipfile(files, path, found)
    return found


def _check_pipfile(files: CodeFiles, path: str, found: Lines) -> None:
    where = joined(os.path.dirname(path), "Pipfile")
    if where not in files:
        return
    there = {named(line) for line in found.requirements if not marker_of(line)} | {
        named(line) for line in found.requirements
    }
    lost = [name for name in files.table(where).get("packages", {}) if canonicalize_name(name) not in there]
    if lost and not found.editables:
        raise InvalidConfig(
            f"{path} does not match {where}, which asks for {', '.join(lost)}.",
            "Make the lock again: pipenv lock. Or do without: --no-project",
        )
