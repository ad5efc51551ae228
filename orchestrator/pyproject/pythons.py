"""The version of Python of an environment: what was typed, else `.python-version`, else one that `requires-python` allows."""

from __future__ import annotations

import re
import sys

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from orchestrator.errors import InvalidConfig
from orchestrator.pyproject.asked import PIN
from orchestrator.pyproject.files import CodeFiles, joined

_VERSION = re.compile(r"(?:cpython[-@]?|python)?(\d+(?:\.\d+){0,2})\Z|(pypy@?\d+(?:\.\d+){0,2})\Z")
_MINORS = range(7, 16)


def pinned(files: CodeFiles, folders: list[str]) -> tuple[str, str]:
    """The version in the nearest `.python-version`, and the path of the file; empty texts if there is none.

    A file with the name of an environment of pyenv says no version.
    """
    for folder in folders:
        path = joined(folder, PIN)
        if path not in files:
            continue
        for line in files.text(path).splitlines():
            if found := _VERSION.match(line.strip()):
                return found[1] or found[2], path
        return "", ""
    return "", ""


def choose(typed: str, pin: tuple[str, str], requires: str, where: str) -> str:
    """The version for the spec; "" where the server's own will do.

    Args:
        typed: what the person asks for.
        pin: see `pinned`.
        requires: the versions that are allowed, as a specifier; "" for all.
        where: the file that allows them.

    Raises:
        InvalidConfig: what is asked for is not allowed.
    """
    try:
        allowed = SpecifierSet(requires)
    except InvalidSpecifier:
        raise InvalidConfig(
            f"{where}: requires-python {requires!r} cannot be read.", "Write it like '>=3.11'."
        ) from None
    for version, says in ((typed, "--python"), pin):
        if version:
            if not _allows(allowed, version):
                cure = (
                    "Ask for one that it allows."
                    if says == "--python"
                    else "Change one of the two, or: --python VERSION"
                )
                raise InvalidConfig(f"{where} is for Python {requires}, but {says} says {version}.", cure)
            return version
    own = sys.version_info
    if allowed.contains(f"{own[0]}.{own[1]}.{own[2]}", prereleases=True):
        return ""
    near = sorted({*_MINORS} - {own[1]}, key=lambda minor: abs(minor - own[1]))
    found = next((minor for minor in near if _allows(allowed, f"3.{minor}")), None)
    if found is None:
        raise InvalidConfig(
            f"{where} is for Python {requires}, which no known Python is.", "Choose one: --python VERSION"
        )
    return f"3.{found}"


def _allows(allowed: SpecifierSet, version: str) -> bool:
    """Whether a version is allowed; one without its last numbers is, if any such version is."""
    if not version[0].isdigit():
        return True
    missing = 3 - len(version.split("."))
    ends = [""] if not missing else [".0" * missing, ".99" * missing]
    return any(allowed.contains(version + end, prereleases=True) for end in ends)
