"""What was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Found(NamedTuple):
    """An environment that was found.

    Attributes:
        file: the path of the file that says it, in the code.
        lines: requirement files: names and texts. They name no folder of the code.
        editables: folders of the code to install editable, "." for its root, with extras.
        python: the version of Python; "" for the server's own.
        packages: the number of packages of a lock, for this machine, or of requirements.
        is_exact: whether it is a lock.
    """

    file: str
    lines: tuple[tuple[str, str], ...] = ()
    editables: tuple[str, ...] = ()
    python: str = ""
    packages: int = 0
    is_exact: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Found:
        """The reverse of `_asdict`."""
        lines = tuple((name, text) for name, text in value["lines"])
        return cls(**{**value, "lines": lines, "editables": tuple(value["editables"])})
