"""What is installed in an environment, read from the records that installers leave.

Format: https://packaging.python.org/en/latest/specifications/recording-installed-packages/
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.environments.request import redacted


@dataclass(frozen=True, slots=True)
class Distribution:
    """One installed package.

    Attributes:
        folder: its `.dist-info` folder.
        frozen: `name==version`, or `name @ URL` where it came from a URL, as `pip freeze` writes it.
        modules: its Python files, relative to the site folder.
        size_bytes: of all its files.
    """

    folder: str
    frozen: str
    modules: tuple[str, ...] = field(repr=False)
    size_bytes: int


def site_folder(environment: Path) -> Path:
    """The folder that `import` looks into.

    Raises:
        FileNotFoundError: when there is none.
    """
    for place in environment.glob("lib/*/site-packages"):
        return place
    raise FileNotFoundError(f"{environment} has no site-packages")


def python_of(environment: Path) -> tuple[str, str]:
    """Full version and kind ("3.11.7", "CPython") of the Python of an environment, from its `pyvenv.cfg`."""
    settings = {}
    for line in (environment / "pyvenv.cfg").read_text().splitlines():
        name, _, value = line.partition("=")
        settings[name.strip()] = value.strip()
    return settings.get("version_info", ""), settings.get("implementation", "")


def distributions(environment: Path) -> list[Distribution]:
    """All packages of an environment, sorted by name."""
    site = site_folder(environment)
    return sorted((_read(folder) for folder in site.glob("*.dist-info")), key=lambda found: found.frozen.lower())


def _read(folder: Path) -> Distribution:
    modules, size_bytes = [], 0
    for path, size in _record(folder):
        size_bytes += int(size) if size.isdigit() else 0
        if path.endswith(".py") and not path.startswith(("/", "../")):
            modules.append(path)
    return Distribution(folder.name, _frozen(folder), tuple(modules), size_bytes)


def _record(folder: Path) -> Iterator[tuple[str, str]]:
    """Path and size of each installed file."""
    try:
        with (folder / "RECORD").open(newline="", errors="surrogateescape") as file:
            for row in csv.reader(file):
                if row:
                    yield row[0], row[2] if len(row) > 2 else ""
    except FileNotFoundError:
        return


def _frozen(folder: Path) -> str:
    stem = folder.name.removesuffix(".dist-info")
    name, _, version = stem.partition("-")
    name = _metadata_name(folder) or name
    url = _source(folder)
    return f"{name} @ {url}" if url else f"{name}=={version}"


def _metadata_name(folder: Path) -> str:
    try:
        with (folder / "METADATA").open(errors="replace") as file:
            for line in file:
                if line.startswith("Name:"):
                    return line[5:].strip()
                if not line.strip():
                    break
    except FileNotFoundError:
        pass
    return ""


def _source(folder: Path) -> str:
    """The URL of a package that did not come from an index; "" for a local one, whose path says nothing later."""
    try:
        told: dict[str, Any] = json.loads((folder / "direct_url.json").read_text())
        url = str(told["url"])
    except (FileNotFoundError, ValueError, KeyError):
        return ""
    if url.startswith("file:"):
        return ""
    vcs = told.get("vcs_info")
    if isinstance(vcs, dict):
        url = f"{vcs.get('vcs')}+{url}@{vcs.get('commit_id')}"
    return redacted(url)
