"""Inline metadata of a script: https://packaging.python.org/en/latest/specifications/inline-script-metadata/ (PEP 723)."""

from __future__ import annotations

import re
import shlex
from typing import Any

from orchestrator.errors import InvalidConfig
from orchestrator.pyproject.files import CodeFiles, joined

_MARK = "# /// script"
_BLOCK = r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$"  # as the specification has it


def named(files: CodeFiles, subdir: str, command: str) -> str:
    """The path of the first script that a command names, if it has such metadata; "" otherwise."""
    if ".py" not in command:
        return ""
    try:
        words = shlex.split(command)
    except ValueError:  # for the shell to complain about
        words = command.split()
    for word in words:
        path = joined(subdir, word)
        if word.endswith(".py") and path in files:
            try:
                return path if _MARK in files.text(path) else ""
            except InvalidConfig:  # in another encoding, which is Python's matter
                return ""
    return ""


def metadata(files: CodeFiles, path: str) -> dict[str, Any]:
    """The metadata of a script.

    Raises:
        InvalidConfig: there are two blocks, or it is no TOML.
    """
    import tomllib  # 3 ms: few scripts have metadata

    blocks = [*re.finditer(_BLOCK, "\n".join(files.text(path).splitlines()) + "\n")]
    if len(blocks) != 1:
        words = "has more than one block of metadata" if blocks else "has metadata that does not end with '# ///'"
        raise InvalidConfig(f"{path} {words}.", "See PEP 723, or do without: --no-project")
    lines = blocks[0]["content"].splitlines(keepends=True)
    try:
        return tomllib.loads("".join(line[2:] if line.startswith("# ") else line[1:] for line in lines))
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"The metadata of {path} cannot be read: {error}.", "See PEP 723.") from None
