"""Reads files of variables, `.env`: the format is python-dotenv's, and a name alone takes the shell's value, as with docker."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import InvalidConfig
from orchestrator.spec.texts import text_of

_LOOKS = r"(?i)((\w*_)?(token|secret|passwd|passphrase|credentials?|apikey|key|pat|dsn)|\w*password)\Z"
# python-dotenv fills variables in there, too; shells and docker compose do not, and passwords are written so.
_IN_SINGLE_QUOTES = r"\A[^=#]*=[^\S\n]*'"
_SHORTEST = 8  # a shorter value is hardly a secret; logs cannot hide one of less than 4


def read_files(paths: Sequence[Path]) -> dict[str, str]:
    """The variables in these files; of one name, that of the last file counts.

    Raises:
        InvalidConfig: one cannot be read. The message names the file and the line, never what it says.
    """
    found: dict[str, str] = {}
    for path in paths:
        found |= _read(path)
    return found


def _read(path: Path) -> dict[str, str]:
    from dotenv.parser import parse_stream  # 40 ms: few runs have such a file
    from dotenv.variables import parse_variables  # 40 ms: as above

    found: dict[str, str] = {}
    for item in parse_stream(io.StringIO(text_of(path))):
        text = item.original.string
        blank = text[: len(text) - len(text.lstrip())].count("\n")
        where = f"{path}, line {item.original.line + blank}"
        if item.error:
            raise InvalidConfig(f"{where}: this is not of the form NAME=VALUE.", "Put # before a comment.")
        if item.key is not None:
            if item.value is None and item.key not in os.environ:
                raise InvalidConfig(f"{where}: {item.key} has no value, and your shell has none.", "Write NAME=VALUE.")
            if item.value is None:
                found[item.key] = os.environ[item.key]
            elif re.search(_IN_SINGLE_QUOTES, text):
                found[item.key] = item.value
            else:
                found[item.key] = "".join(atom.resolve({**os.environ, **found}) for atom in parse_variables(item.value))
    return found


def secrets_in(variables: Mapping[str, str]) -> dict[str, str]:
    """Those variables whose names say that they are secrets."""
    return {
        name: value
        for name, value in variables.items()
        if re.match(_LOOKS, name) and len(value) >= _SHORTEST and not value.startswith(("/", "./", "~"))
    }
