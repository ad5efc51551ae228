"""What a person asks for, and whether there may be anything to find. Every `spell run` loads this module, so it is small."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # loaded anyway, but a word of it is enough here
    from orchestrator.content.manifest import Entry

KINDS = (
    *("uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock", "pdm.lock"),
    *("requirements.txt", "pyproject.toml", "environment.yml", "environment.yaml"),
)
"""The names of files that say an environment, the first ones first."""
PIN = ".python-version"


class Asked(NamedTuple):
    """What of a project a run gets.

    Attributes:
        groups, extras: their names, beside what is installed by default.
        nothing: find nothing.
    """

    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    nothing: bool = False


def upwards(folder: str) -> list[str]:
    """A folder of the code and all above it, to the root: "a/b", "a", ""."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:length]) for length in range(len(parts), -1, -1)]


def entry_at(entries: Sequence[Entry], path: str) -> Entry | None:
    """The entry with this path, of those of a manifest, which are sorted."""
    at = bisect.bisect_left(entries, path, key=lambda entry: entry.path)
    return entries[at] if at < len(entries) and entries[at].path == path else None


def says_something(entries: Sequence[Entry], folder: str) -> bool:
    """Whether a folder of the code, or one above it, has a file that may say an environment."""
    places = [f"{above}/" if above else "" for above in upwards(folder)]
    return any(entry_at(entries, f"{place}{name}") for place in places for name in (*KINDS, PIN))
