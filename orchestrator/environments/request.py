"""The request for an environment, read and checked before anything is built.

`EnvironmentRequest` comes from a run's spec; `read` turns it into a `ParsedRequest`, whose comments and references are
resolved, so that two spellings of the same request have the same key, and uv never looks for a file that does not exist.
The grammar of requirement files is pip's: https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from orchestrator.errors import InvalidConfig
from orchestrator.spec.redaction import redacted
from orchestrator.spec.run import RequirementFile

_HOW = "Write it as NAME, NAME==VERSION, NAME @ URL, or the path of a wheel."
_URL = re.compile(r"((git|hg|svn|bzr)\+[\w+]+|https?|file)://?", re.IGNORECASE)
_NAMED = re.compile(r"(?P<name>[\w.-]+\s*(\[[^\]]*\])?)\s*@\s*(?P<target>.+)", re.DOTALL)
_TAIL = re.compile(r"(?P<extras>\[[\w\s,.-]*\])?(?P<rest>(\s+;.*|\s+--.*)?)$", re.DOTALL)
_ARCHIVE = re.compile(r"\S+\.(whl|zip|tar\.(gz|bz2|xz)|tgz)\Z", re.IGNORECASE)
_COMMENT = re.compile(r"(^|\s+)#.*$")
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_ARCHIVES = (b"PK\3\4", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")  # zip, gzip, bzip2, xz
_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg")
_FILE_NAME = re.compile(r"[\w][\w.+-]*\Z")
_NOT_REQUIREMENTS = re.compile(r"(pyproject\.toml|setup\.(py|cfg)|pylock[\w.-]*\.toml|.*\.(ya?ml|py))\Z")

# Options of pip that are allowed in a requirements file, in every spelling, and the setting that they change.
_FILE_OPTIONS = {
    "-i": "index-url",
    "--index-url": "index-url",
    "--pypi-url": "index-url",
    "--extra-index-url": "extra-index-url",
    "-f": "find-links",
    "--find-links": "find-links",
    "--no-index": "no-index",
    "--pre": "pre",
    "--trusted-host": "trusted-host",
}
_FLAGS = frozenset({"no-index", "pre"})
_REFERENCES = {"-r": "-r", "--requirement": "-r", "-c": "-c", "--constraint": "-c"}
_EDITABLE = frozenset({"-e", "--editable"})


@dataclass(frozen=True, slots=True)
class EnvironmentRequest:
    """A request for packages and a Python version.

    Attributes:
        python: the wanted version ("3.12"); "" for the server's.
        requirements: requirement lines, those of frameworks included.
        requirement_files: requirement files by value; one may name another by `-r` or `-c`.
        base: the folder from which relative paths (`./x.whl`) start; None refuses them.
        variables: values of `${NAME}` in requirement files; hidden. Only these: the author of such a file must not learn
            other variables of this machine by naming them in the URL of an index.
    """

    python: str = ""
    requirements: tuple[str, ...] = ()
    requirement_files: tuple[RequirementFile, ...] = ()
    base: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def bare(self) -> bool:
        """Whether it requests neither packages nor a version of Python."""
        return not (self.python or self.requirements or self.requirement_files)


@dataclass(frozen=True, slots=True)
class Local:
    """A requirement that is a file or folder of this machine.

    Attributes:
        path: its path.
        name: the text before the `@`, with extras; "" for a bare path.
        tail: the text after the path: extras, marker, hashes.
    """

    path: Path
    name: str = ""
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """`-r other.txt` or `-c other.txt`: `option`, and the index of the file in the request."""

    option: str
    file: int


Line = str | Local | Reference


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """One requirements file: its lines, and whether other files use it only as constraints."""

    name: str
    lines: tuple[Line, ...]
    constraints_only: bool = False


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request that was read.

    Attributes:
        lines: the requirement lines.
        files: the requirement files.
        options: the settings that requirement files change, by pip's names, as they are written; see
            `settings.uv_settings`.
        variables: the variables of the request.
    """

    python: str
    lines: tuple[str | Local, ...]
    files: tuple[ParsedFile, ...]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def named_variables(self) -> set[str]:
        """The names in `${NAME}` of all lines, which uv replaces by its own environment variables."""
        lines = (*self.lines, *(line for file in self.files for line in file.lines))
        return {name for line in lines if isinstance(line, str) for name in VARIABLE.findall(line)}

    @property
    def bare(self) -> bool:
        """Whether it requests no package."""
        return not self.lines and not any(file.lines for file in self.files)

    def locals(self) -> Iterator[Local]:
        """Yield every requirement that is a path."""
        for line in (*self.lines, *(line for file in self.files for line in file.lines)):
            if isinstance(line, Local):
                yield line


def check_requirement(line: str) -> None:
    """Refuse a `--pip` line that is not a requirement. Does not check whether a path exists.

    Args:
        line: `six`, `six==1.17`, `six @ file:///…`, `git+https://…`, `./x.whl`; no options.
    Raises:
        InvalidConfig: with the reason.
    """
    text = line.strip()
    if not text or text.startswith("-") or any(char in line for char in "\n\r\0"):
        raise InvalidConfig(f"{redacted(line)!r} is not a pip requirement.", _HOW)
    if _local(text) is not None or _URL.match(text):
        return
    try:
        Requirement(_COMMENT.sub("", text))
    except InvalidRequirement as error:
        reason = str(error).partition("\n")[0]
        raise InvalidConfig(f"{redacted(line)!r} is not a pip requirement: {redacted(reason)}.", _HOW) from None


def check_request(request: EnvironmentRequest) -> None:
    """Refuse a request that is invalid, as far as this can be seen without building.

    Raises:
        InvalidConfig: bad syntax, an option among the lines, or a file that was not sent.
    """
    _read(request)


def read(request: EnvironmentRequest) -> ParsedRequest:
    """Return the request without comments, with paths and references resolved.

    Raises:
        InvalidConfig: as `check_request`, or when a path does not exist.
    """
    asked = _read(request)
    for local in asked.locals():
        if not local.path.exists():
            raise InvalidConfig(f"The requirement {str(local.path)!r} does not exist on the server's machine.")
        if not is_package(local.path):
            raise InvalidConfig(
                f"The requirement {str(local.path)!r} is neither a package nor a project folder.",
                "Name a wheel, a source archive, or a folder with a pyproject.toml or setup.py.",
            )
    return asked


def is_package(path: Path) -> bool:
    """Whether a file is an archive (by its first bytes), or a folder holds a project.

    A build can read what a requirement names, so a requirement must not name an arbitrary file of this machine.
    """
    try:
        if path.is_dir():
            return any((path / name).is_file() for name in _PROJECT)
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            return file.read(max(map(len, _ARCHIVES))).startswith(_ARCHIVES)
    except OSError as error:
        raise InvalidConfig(f"The requirement {str(path)!r} cannot be read: {error.strerror or error}.") from error


def _read(request: EnvironmentRequest) -> ParsedRequest:
    lines: list[str | Local] = []
    for line in request.requirements:
        check_requirement(line)
        text = _COMMENT.sub("", line).strip()
        local = _local(text)
        lines.append(text if local is None else _absolute(local, request.base))
    reader = _FileReader(request)
    files = tuple(reader.read(file) for file in request.requirement_files)
    files = tuple(
        ParsedFile(file.name, file.lines, index in reader.constraints - reader.included)
        for index, file in enumerate(files)
    )
    options = {name: tuple(values) for name, values in reader.options.items()}
    return ParsedRequest(request.python, tuple(lines), files, options, request.variables)


def _local(text: str) -> Local | None:
    """Return the path that a requirement names; None when it names a package or a URL."""
    named = _NAMED.match(text)
    name, target = (named["name"], named["target"]) if named else ("", text)
    tail = _TAIL.search(target)
    place, rest = (target[: tail.start()], tail[0]) if tail else (target, "")
    if place.lower().startswith("file:"):
        return Local(Path(unquote(urlsplit(place).path)), name, rest)
    if _URL.match(place) or "://" in place:
        return None
    head = place.partition(";")[0]
    if named or place in (".", "..") or "/" in head or _ARCHIVE.match(place):
        return Local(Path(place), name, rest)
    return None


def _absolute(local: Local, base: Path | None) -> Local:
    path = local.path.expanduser()
    if not path.is_absolute():
        if base is None:
            raise InvalidConfig(
                f"The requirement {str(local.path)!r} is a relative path, which the server cannot resolve.",
                "Give the absolute path on the server's machine.",
            )
        path = base / path
    return Local(Path(os.path.normpath(path)), local.name, local.tail)


class _FileReader:
    """Reads the requirement files of one request, and collects their options and references."""

    def __init__(self, request: EnvironmentRequest) -> None:
        self._base = request.base
        self._names = [file.name.rpartition("/")[2] for file in request.requirement_files]
        self.options: dict[str, list[str]] = {}
        self.constraints: set[int] = set()
        self.included: set[int] = set()

    def read(self, file: RequirementFile) -> ParsedFile:
        name = file.name.rpartition("/")[2]
        if _NOT_REQUIREMENTS.match(name):
            raise InvalidConfig(f"{file.name!r} is not a requirements file.", "Give a file in the format of pip.")
        lines = []
        for text in _logical_lines(file.text):
            line = self._line(text, file.name)
            if line is not None:
                lines.append(line)
        return ParsedFile(name if _FILE_NAME.match(name) else "requirements.txt", tuple(lines))

    def _line(self, text: str, file: str) -> Line | None:
        if not text.startswith("-"):
            local = _local(text)
            return text if local is None else _absolute(local, self._base)
        option, value = _split_option(text)
        if option in _EDITABLE:
            raise InvalidConfig(
                f"{file} asks for an editable install ({redacted(text)!r}), but environments are shared and never edited.",
                "Remove the -e.",
            )
        if option in _REFERENCES:
            return self._reference(_REFERENCES[option], value, file)
        name = _FILE_OPTIONS.get(option)
        if name is None:
            return text
        self._set_option(name, value)
        return None

    def _reference(self, option: str, value: str, file: str) -> Line:
        if "://" in value:
            return f"{option} {value}"
        name = value.rpartition("/")[2]
        if name not in self._names:
            raise InvalidConfig(f"{file} refers to {value!r}, which was not sent.", f"Send it too: --pip-req {value}.")
        index = self._names.index(name)
        (self.constraints if option == "-c" else self.included).add(index)
        return Reference(option, index)

    def _set_option(self, name: str, value: str) -> None:
        if name in _FLAGS:
            value = "true"
        elif name == "find-links" and "://" not in value:
            value = str(_absolute(Local(Path(value)), self._base).path)
        self.options.setdefault(name, []).append(value)


def _split_option(text: str) -> tuple[str, str]:
    """Split `--index-url=X`, `--index-url X`, `-iX` and `-i X` into option and value."""
    if text.startswith("--"):
        option, *value = re.split(r"\s*=\s*|\s+", text, maxsplit=1)
        return option, "".join(value).strip()
    return text[:2], text[2:].strip().removeprefix("=").strip()


def _logical_lines(text: str) -> Iterator[str]:
    """Yield the lines of a requirements file: continuations joined, comments and empty lines removed."""
    joined = ""
    for line in (*text.removeprefix("\ufeff").splitlines(), ""):
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            joined += line[:-1]
            continue
        whole = _COMMENT.sub("", joined + line).strip()
        joined = ""
        if whole:
            yield whole
