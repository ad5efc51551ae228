"""Requirements files as text: their lines, options, variables and references. Client and server read them with this module.

The grammar is pip's: https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
COMMENT = re.compile(r"(^|\s+)#.*$")
REFERENCES = {"-r": "-r", "--requirement": "-r", "-c": "-c", "--constraint": "-c"}
EDITABLE = frozenset({"-e", "--editable"})
PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
"""A folder with one of these is a project that can be installed."""


class Line(NamedTuple):
    """A logical line: the number of its first line, from 1, and its text without comment."""

    number: int
    text: str


def logical_lines(text: str) -> Iterator[Line]:
    """Yield the lines of a file: continuations joined, comments and empty lines removed."""
    joined, first = "", 0
    for number, line in enumerate((*text.removeprefix("\ufeff").splitlines(), ""), 1):
        first = first or number
        if _is_continued(line):
            joined += line[:-1]
            continue
        whole = COMMENT.sub("", joined + line).strip()
        if whole:
            yield Line(first, whole)
        joined, first = "", 0


def _is_continued(line: str) -> bool:
    return line.endswith("\\") and not line.lstrip().startswith("#")


def split_option(text: str) -> tuple[str, str]:
    """Split `--index-url=X`, `--index-url X`, `-iX` and `-i X` into option and value."""
    if text.startswith("--"):
        option, *value = re.split(r"\s*=\s*|\s+", text, maxsplit=1)
        return option, "".join(value).strip()
    return text[:2], text[2:].strip().removeprefix("=").strip()


def names_path(option: str, value: str) -> bool:
    """Whether a line is a requirement, or names a folder of wheels, by a path that is relative to some folder."""
    if option not in ("", "-f", "--find-links", *EDITABLE):
        return False
    place = re.split(r"[\s;\[#]", value, maxsplit=1)[0]
    if "://" in value or place.startswith(("/", "~", "$")) or re.search(r"\s@\s", value):
        return False
    return bool(option) or place in (".", "..") or "/" in place or place.endswith(".whl")


def references(text: str) -> Iterator[tuple[Line, str]]:
    """Yield each line that refers to another file (`-r other.txt`), and what it names."""
    for line in logical_lines(text):
        if line.text.startswith("-"):
            option, value = split_option(line.text)
            if option in REFERENCES:
                yield line, value


def filled(text: str, variables: Mapping[str, str]) -> str:
    """A text with each known `${NAME}` replaced; as pip does, one that is unknown or empty stays."""
    return VARIABLE.sub(lambda found: variables.get(found[1]) or found[0], text)


def beside(name: str, value: str) -> str:
    """The name of a file that the file `name` refers to as `value`: relative like `name`, unless it is absolute."""
    is_absolute = "://" in value or posixpath.isabs(value) or VARIABLE.match(value)
    return value.rpartition("/")[2] if is_absolute else posixpath.normpath(f"{posixpath.dirname(name) or '.'}/{value}")


def find(name: str, value: str, names: Sequence[str], variables: Mapping[str, str]) -> int | None:
    """The position in `names` of the file that the file `name` refers to as `value`; None if it is not there.

    The name must be exact. Only where the folder is a variable, which may have changed, its end is enough if one has it.
    """
    for exact in (beside(name, value), beside(name, filled(value, variables))):
        if exact in names:
            return names.index(exact)
    end = VARIABLE.split(value)[-1]
    alike = [index for index, other in enumerate(names) if f"/{other}".endswith(end)] if end.startswith("/") else []
    return alike[0] if len(alike) == 1 and end != value else None


def from_file(name: str, other: str) -> str:
    """How the file `name` refers to the file `other`; neither leads upwards."""
    return posixpath.relpath(f"/{other}", posixpath.dirname(f"/{name}"))


def redirected(text: str, targets: Mapping[int, str]) -> str:
    """A text whose references in some lines (by their number) name other files. Every line keeps its number."""
    options = {line.number: split_option(line.text)[0] for line, _ in references(text)}
    return replaced(text, {at: f"{options[at]} {target}" for at, target in targets.items() if at in options})


def replaced(text: str, lines: Mapping[int, str]) -> str:
    """A text with other logical lines in place of some, by their number. Every line keeps its number."""
    found = text.removeprefix("\ufeff").splitlines(keepends=True)
    for number, line in lines.items():
        new = line
        for index in range(number - 1, len(found)):
            old = found[index].splitlines()[0]
            found[index] = new + found[index][len(old) :]
            if not _is_continued(old):
                break
            new = ""
    return "".join(found)
