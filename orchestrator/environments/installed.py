"""Lists the packages in an environment, from the metadata that installers write.

Format: https://packaging.python.org/en/latest/specifications/recording-installed-packages/
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.spec.redaction import without_users

_DIGITS = 20  # of any real file size
_LIMIT_BYTES = 256 << 20  # the largest RECORD files have a few megabytes


@dataclass(frozen=True, slots=True)
class Distribution:
    """One installed package.

    Attributes:
        folder: its `.dist-info` folder.
        frozen: `name==version`, or `name @ URL` if it came from a URL, as `pip freeze` writes it.
        modules: its Python files, relative to the site folder.
        size_bytes: the size of all its files.
    """

    folder: str
    frozen: str
    modules: tuple[str, ...] = field(repr=False)
    size_bytes: int


def site_folder(environment: Path) -> Path:
    """Return the site-packages folder.

    Raises:
        FileNotFoundError: when it does not exist.
    """
    root = environment.resolve()
    for place in environment.glob("lib/*/site-packages"):
        if place.resolve().is_relative_to(root):
            return place
    raise FileNotFoundError(f"{environment} has no site-packages")


def read_inside(environment: Path, path: Path) -> bytes:
    """Read a file of an environment, where a build may have put anything: links that lead out, devices, pipes.

    Raises:
        FileNotFoundError: when it does not exist, or is not a file that an installer would write.
    """
    if path.resolve().is_relative_to(environment.resolve()):
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode) and found.st_size <= _LIMIT_BYTES:
                return file.read(_LIMIT_BYTES)
    raise FileNotFoundError(f"{path} is not a file")


def python_of(environment: Path) -> tuple[str, str]:
    """Return version and kind ("3.11.7", "CPython") of the Python of an environment, from its `pyvenv.cfg`."""
    settings = {}
    for line in read_inside(environment, environment / "pyvenv.cfg").decode(errors="replace").splitlines():
        name, _, value = line.partition("=")
        settings[name.strip()] = value.strip()
    return settings.get("version_info", ""), settings.get("implementation", "")


def distributions(environment: Path) -> list[Distribution]:
    """Return all packages of an environment, sorted by name."""
    site = site_folder(environment)
    return sorted(
        (_read(environment, folder) for folder in site.glob("*.dist-info")), key=lambda found: found.frozen.lower()
    )


def _read(environment: Path, folder: Path) -> Distribution:
    modules, size_bytes = [], 0
    for path, size in _record(environment, folder):
        size_bytes += int(size) if size.isdecimal() and len(size) < _DIGITS else 0
        if path.endswith(".py") and not path.startswith("/") and "../" not in path:
            modules.append(path)
    return Distribution(folder.name, _frozen(environment, folder), tuple(modules), size_bytes)


def _record(environment: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield path and size of each installed file."""
    try:
        text = read_inside(environment, folder / "RECORD").decode(errors="surrogateescape")
        for row in csv.reader(io.StringIO(text, newline="")):
            if row:
                yield row[0], row[2] if len(row) > 2 else ""
    except (FileNotFoundError, csv.Error):
        return


def files_of(environment: Path, folder: Path) -> list[str]:
    """Return the paths of the files of a package, relative to the site folder, from its `.dist-info` folder."""
    return [path for path, _ in _record(environment, folder)]


def _frozen(environment: Path, folder: Path) -> str:
    stem = folder.name.removesuffix(".dist-info")
    name, _, version = stem.partition("-")
    name = _metadata_name(environment, folder) or name
    url = source(environment, folder)
    # of a local one the path may change
    return f"{name} @ {url}" if url and not url.startswith("file:") else f"{name}=={version}"


def _metadata_name(environment: Path, folder: Path) -> str:
    try:
        text = read_inside(environment, folder / "METADATA").decode(errors="replace")
    except FileNotFoundError:
        return ""
    for line in io.StringIO(text):
        if line.startswith("Name:"):
            return line[5:].strip()
        if not line.strip():
            break
    return ""


def source(environment: Path, folder: Path) -> str:
    """Return the URL of a package that did not come from an index; "" for one that did."""
    try:
        origin: dict[str, Any] = json.loads(read_inside(environment, folder / "direct_url.json"))
        url = str(origin["url"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    vcs = origin.get("vcs_info")
    if isinstance(vcs, dict):
        url = f"{vcs.get('vcs')}+{url}@{vcs.get('commit_id')}"
    return without_users(url)
