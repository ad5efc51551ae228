"""Text of files that people bring: in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, as PowerShell's `>` writes it."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from orchestrator.errors import InvalidConfig

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = rb"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)"


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        InvalidConfig: it cannot be read. The message names the file, and the line that is no text.
    """
    try:
        return decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read: {error.strerror or error}.") from error


def decoded(data: bytes, name: str) -> str:
    """The text of a file's bytes, without a byte order mark; a `# coding: …` in its first two lines counts, as for pip.

    Raises:
        InvalidConfig: it is no text. The message names the line.
    """
    mark, encoding = next((found for found in _MARKS if data.startswith(found[0])), (b"", _declared(data)))
    data = data[len(mark) :]
    try:
        return data.decode(encoding).replace("\r\n", "\n")
    except (UnicodeDecodeError, LookupError) as error:
        line = data.count(b"\n", 0, error.start) + 1 if isinstance(error, UnicodeDecodeError) else 1
        where = f"{name}, line {line}: this is not text in {encoding.upper()}."
        raise InvalidConfig(where, "Save the file as UTF-8.") from error


def _declared(data: bytes) -> str:
    for line in data.split(b"\n", 2)[:2]:
        if found := re.match(_DECLARED, line):
            return found[1].decode("ascii", "replace")
    return "utf-8"
