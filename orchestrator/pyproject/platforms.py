"""The platform for which lines of a lock count: that of this machine, and Linux too, as containers have it everywhere."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from functools import cache

from packaging.markers import InvalidMarker, Marker, default_environment

_ARCHITECTURES = {"x86_64": ("x86_64", "amd64"), "amd64": ("x86_64", "amd64"), "aarch64": ("aarch64", "arm64")}


def environments(python: str) -> list[dict[str, str]]:
    """The values that markers see, for a version of Python ("3.12"; "" for this one), on each platform."""
    here = {name: str(value) for name, value in default_environment().items()}
    if python[:1].isdigit():
        numbers = python.split(".")
        here["python_version"] = ".".join((*numbers, "0")[:2])
        here["python_full_version"] = ".".join((*numbers, "0", "0")[:3])
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    return [here] if sys.platform == "linux" else [here, {**here, **linux}]


def counts(marker: str, where: Iterable[dict[str, str]]) -> bool:
    """Whether a marker is fulfilled on one of these platforms; one that cannot be read is, as uv may understand it."""
    if not marker:
        return True
    try:
        parsed = Marker(marker)
        return any(parsed.evaluate(dict(environment)) for environment in where)
    except (InvalidMarker, ValueError, KeyError):
        return True


def fits(file: str) -> bool:
    """Whether a wheel of this name can be installed on this machine or in its containers, by some Python.

    Its last part are platforms: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    return not file.endswith(".whl") or _is_here(file.removesuffix(".whl").rpartition("-")[2])


@cache
def _is_here(platforms: str) -> bool:
    machine = platform.machine().lower()
    known = _ARCHITECTURES.get(machine, (machine,))
    systems = ("linux", "manylinux", "musllinux", *(("macosx",) if sys.platform == "darwin" else ()))
    return any(
        name == "any" or (name.startswith(systems) and name.endswith((*known, "universal2")))
        for name in platforms.split(".")
    )
