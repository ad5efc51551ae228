"""The packages of an exported run: their versions, and the wheels of packages that no index has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from orchestrator.environments.request import ParsedRequest, read
from orchestrator.errors import InvalidConfig
from orchestrator.lifecycle.context import Context
from orchestrator.records.runs import RunRecord
from orchestrator.spec.redaction import redacted
from orchestrator.spec.run import RunSpec

_CREDENTIALS = "****@"
_PLACES = ("index-url", "extra-index-url", "find-links")


@dataclass(frozen=True, slots=True)
class Packages:
    """The packages of the exported image.

    Attributes:
        lines: of its requirements file.
        wheels: files of the server's machine, exported beside it.
    """

    lines: Sequence[str]
    wheels: Sequence[Path]


def packages_of(context: Context, run: RunRecord, spec: RunSpec, warnings: list[str]) -> Packages:
    """The packages of a run.

    Args:
        warnings: the differences from the run are added to it.
    """
    try:
        asked = read(context.request(spec))
    except InvalidConfig as error:
        warnings.append(f"Packages that were installed from files of the server's machine are missing: {error.message}")
        asked = None
    wheels = _given(asked, warnings) if asked else []
    places = _places(asked, warnings) if asked else []
    linked = {_build(path): path for folder in context.environments.find_links for path in folder.glob("*.whl")}
    wheels += [path for line in run.packages if (path := linked.get(_named(line))) and path not in wheels]
    here = {_build(path)[0] for path in wheels}
    names = {_named(line)[0] for line in run.packages}
    for line in run.packages:
        if _CREDENTIALS in line:
            warnings.append(f"{line} needs your credentials: write them into requirements.txt.")
        name, version = _named(line)
        if "+" in version and name not in here and not places:
            warnings.append(f"{line} is a build that PyPI does not have: write its index into requirements.txt.")
    lines = [*places, *run.packages]
    if wheels:
        lines = ["--find-links wheels", *(["--no-index"] if names <= here else []), *lines]
    return Packages(lines, wheels)


def _given(asked: ParsedRequest, warnings: list[str]) -> list[Path]:
    """The wheels that were named by path."""
    found = []
    for item in asked.locals():
        if item.path.is_file():
            found.append(item.path)
        else:
            warnings.append(f"The package in the folder {item.path} is not exported: install it by hand.")
    return found


def _places(asked: ParsedRequest, warnings: list[str]) -> list[str]:
    """The lines that name further indexes and folders."""
    found = []
    for option in _PLACES:
        for value in asked.options.get(option, ()):
            shown = redacted(value)
            if shown != value:
                warnings.append(f"--{option} {shown} needs your credentials: write them into requirements.txt.")
            if "://" in value:
                found.append(f"--{option} {shown}")
    return found


def _named(line: str) -> tuple[str, str]:
    name, _, version = line.partition("==")
    return canonicalize_name(name), version


def _build(path: Path) -> tuple[str, str]:
    try:
        name, version, *_ = parse_wheel_filename(path.name)
    except InvalidWheelFilename:
        return "", ""
    return name, str(version)
