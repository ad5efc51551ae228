"""The pip and the uv that were installed with spell, which runs get, too."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from orchestrator.environments.uv import uv_executable
from orchestrator.errors import BuildFailed


@cache
def own_uv() -> Path | None:
    """Return our uv, else the one on the server's PATH; None when there is none."""
    try:
        return Path(uv_executable())
    except BuildFailed:
        return None


@cache
def own_pip() -> Path | None:
    """Return the folder of our pip's package; None when spell was installed without it."""
    try:
        package = Path(str(distribution("pip").locate_file("pip"))).resolve()
    except PackageNotFoundError:
        return None
    return package if package.is_dir() else None


def pip_works(python: str) -> bool:
    """Whether our pip works with this version of Python."""
    package = own_pip()
    return package is not None and _pythons_of_pip().contains(python, prereleases=True)


@cache
def _pythons_of_pip() -> SpecifierSet:
    try:
        return SpecifierSet(distribution("pip").metadata["Requires-Python"] or "")
    except InvalidSpecifier:
        return SpecifierSet()
