"""Requirement lines, and what belongs to them: indexes, folders of wheels, projects to install editable."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from orchestrator.errors import InvalidConfig
from orchestrator.pyproject.files import joined
from orchestrator.pyproject.platforms import counts

PYPI = "https://pypi.org/simple"
_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:$|[\[\]<>=!~;@\s(])")


@dataclass(slots=True)
class Lines:
    """What was collected.

    Attributes:
        requirements: lines that name no path of the code.
        indexes: URLs of indexes beside the default one.
        links: folders and pages of wheels.
        editables: folders of the code, "." for its root, and the extras of each.
    """

    requirements: list[str] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    editables: dict[str, set[str]] = field(default_factory=dict)

    def edit(self, folder: str, extras: Iterable[str] = ()) -> None:
        """Install the project in a folder of the code editable.

        Raises:
            InvalidConfig: it is outside the code.
        """
        if folder == ".." or folder.startswith("../") or posixpath.isabs(folder):
            raise InvalidConfig(
                f"The project {folder!r} lies outside the code of the run, so it is not sent.",
                "Give it beside the found packages, by its path on the server's machine: --pip /home/me/project",
            )
        self.editables.setdefault(folder or ".", set()).update(extras)

    def text(self) -> str:
        """The lines as the text of a requirements file."""
        options = [f"--extra-index-url {url}" for url in dict.fromkeys(self.indexes) if url.rstrip("/") != PYPI]
        options += [f"--find-links {place}" for place in dict.fromkeys(self.links)]
        return "".join(f"{line}\n" for line in (*options, *dict.fromkeys(self.requirements)))

    def count(self, where: list[dict[str, str]]) -> int:
        """The number of requirements that count on one of these platforms."""
        return sum(counts(marker_of(line), where) for line in dict.fromkeys(self.requirements))


def marker_of(line: str) -> str:
    """The marker of a requirement line; "" if it has none."""
    before, semicolon, after = line.partition(" --hash")[0].partition(" ;")
    if semicolon or " @ " in before:
        return after.strip()
    return before.partition(";")[2].strip()


def named(line: str) -> str:
    """The package that a requirement line names; "" for an option or a path."""
    found = _NAME.match(line.strip())
    return canonicalize_name(found[1]) if found else ""


def without(text: str, names: Collection[str]) -> str:
    """The text of a requirements file with one requirement a line, without those of these packages."""
    return "".join(line for line in text.splitlines(keepends=True) if named(line) not in names)


def requirement(text: str, where: str) -> Requirement:
    """A requirement.

    Raises:
        InvalidConfig: it is none.
    """
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).partition("\n")[0]
        raise InvalidConfig(f"{where}: {text!r} is not a requirement: {reason}.") from None


def inside(folder: str, path: str) -> str:
    """A path that a file in a folder of the code names, from the root of the code; "" is the root."""
    return path if posixpath.isabs(path) else joined(folder, path)
