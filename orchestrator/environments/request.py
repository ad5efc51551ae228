"""The request for an environment, read and checked before anything is built.

`EnvironmentRequest` comes from a run's spec; `read` turns it into a `ParsedRequest`, whose comments and references are
resolved, so that two spellings of the same request have the same key, and uv never looks for a file that does not exist.
`spec.requirements` reads the lines of requirement files; what they may ask for is decided here.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from orchestrator.environments.projects import Projects
from orchestrator.environments.requirement_lines import check_line, needed, requirement_of
from orchestrator.errors import InvalidConfig
from orchestrator.spec.redaction import redacted
from orchestrator.spec.requirements import (
    COMMENT,
    EDITABLE,
    PROJECT_FILES,
    REFERENCES,
    VARIABLE,
    find,
    logical_lines,
    split_option,
)
from orchestrator.spec.run import RequirementFile

_HOW = "Write it as NAME, NAME==VERSION, NAME @ URL, or the path of a wheel."
_URL = re.compile(r"((git|hg|svn|bzr)\+[\w+]+|https?|file)://?", re.IGNORECASE)
_NAMED = re.compile(r"(?P<name>[\w.-]+\s*(\[[^\]]*\])?)\s*@\s*(?P<target>.+)", re.DOTALL)
_TAIL = re.compile(r"(?P<extras>\[[\w\s,.-]*\])?(?P<rest>(\s+;.*|\s+--.*)?)$", re.DOTALL)
_ARCHIVE = re.compile(r"\S+\.(whl|zip|tar\.(gz|bz2|xz)|tgz)\Z", re.IGNORECASE)
_FROZEN = "If `pip freeze` wrote the line, write the file again: pip list --format=freeze > requirements.txt"
_ARCHIVES = (b"PK\3\4", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")  # zip, gzip, bzip2, xz
_FILE_NAME = re.compile(r"[\w][\w.+-]*\Z")
_OTHER_FILES = (
    (r"pyproject\.toml|setup\.(py|cfg)", "Write one from it: uv pip compile {} -o requirements.txt"),
    (r"uv\.lock|pylock[\w.-]*\.toml", "Write one from the lock: uv export -o requirements.txt"),
    (r"poetry\.lock", "Write one from the lock: poetry export -o requirements.txt"),
    (r"Pipfile(\.lock)?", "Write one from the lock: pipenv requirements > requirements.txt"),
    (r".*\.ya?ml", "In the environment that it made, write: pip list --format=freeze > requirements.txt"),
    (r".*\.py", "Give a file in the format of pip."),
)
"""Files that people give instead of a requirements file, and how to make one of each."""

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
    "--require-hashes": "require-hashes",
    "--trusted-host": "trusted-host",
}
FLAGS = frozenset({"no-index", "pre", "require-hashes"})


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
        projects: projects of the code, which are all that such an environment holds.
    """

    python: str = ""
    requirements: tuple[str, ...] = ()
    requirement_files: tuple[RequirementFile, ...] = ()
    base: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    projects: Projects | None = None

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
        where: its place in a requirements file, for messages.
    """

    path: Path
    name: str = ""
    tail: str = ""
    where: str = field(default="", compare=False)


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
        projects: projects of the code, instead of packages.
    """

    python: str
    lines: tuple[str | Local, ...]
    files: tuple[ParsedFile, ...]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    projects: Projects | None = None

    @property
    def named_variables(self) -> set[str]:
        """The names in `${NAME}` of all lines, which uv replaces by its own environment variables."""
        lines = (*self.lines, *(line for file in self.files for line in file.lines))
        return {name for line in lines if isinstance(line, str) for name in VARIABLE.findall(line)}

    @property
    def bare(self) -> bool:
        """Whether it requests no package."""
        return not (self.lines or self.projects or any(file.lines for file in self.files))

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
        Requirement(COMMENT.sub("", text))
    except InvalidRequirement as error:
        reason = str(error).partition("\n")[0]
        raise InvalidConfig(f"{redacted(line)!r} is not a pip requirement: {redacted(reason)}.", _meant(text)) from None


def _meant(text: str) -> str:
    """What to write instead of `--pip six=1.16`, `--pip six,tqdm` and `--pip "six tqdm"`."""
    names = re.split(r"[\s,]+", text)
    if len(names) > 1 and all(re.fullmatch(r"[A-Za-z][\w.-]*(==[\w.]+)?", name) for name in names):
        return f"Repeat the option: {' '.join(f'--pip {name}' for name in names)}"
    found = re.fullmatch(r"([\w.-]+)=([\w.]+)", text)
    return f"Write it as {found[1]}=={found[2]}" if found else _HOW


def check_request(request: EnvironmentRequest) -> None:
    """Refuse a request that no build can take, as far as this can be seen without building. Raises as `read`."""
    read(request)


def read(request: EnvironmentRequest) -> ParsedRequest:
    """Return the request without comments, with paths and references resolved.

    Raises:
        InvalidConfig: bad syntax, an option among the lines, a file that was not sent, or a path that does not exist. The
            message names the file and the line.
    """
    asked = _read(request)
    for local in asked.locals():
        the = f"{local.where}: The" if local.where else "The"
        if not local.path.exists():
            words = f"{the} requirement {str(local.path)!r} does not exist on the server's machine."
            raise InvalidConfig(words, _FROZEN if local.name and local.where else "")
        if not is_package(local.path):
            raise InvalidConfig(
                f"{the} requirement {str(local.path)!r} is neither a package nor a project folder.",
                "Name a wheel, a source archive, or a folder with a pyproject.toml or setup.py.",
            )
    return asked


def is_package(path: Path) -> bool:
    """Whether a file is an archive (by its first bytes), or a folder holds a project.

    A build can read what a requirement names, so a requirement must not name an arbitrary file of this machine.
    """
    try:
        if path.is_dir():
            return any((path / name).is_file() for name in PROJECT_FILES)
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            return file.read(max(map(len, _ARCHIVES))).startswith(_ARCHIVES)
    except OSError as error:
        raise InvalidConfig(f"The requirement {str(path)!r} cannot be read: {error.strerror or error}.") from error


def _check_python(version: str) -> None:
    if re.match(r"(cpython@?)?([12]\b|[12]\d?\.|2\d\b|3\.[0-5]\b)", version):
        raise InvalidConfig(
            f"Python {version} is too old: uv builds environments for 3.6 and newer.",
            "Code for an older one runs where that Python is installed, without --python: spell run 'python2.7 train.py'",
        )


def _read(request: EnvironmentRequest) -> ParsedRequest:
    _check_python(request.python)
    lines: list[str | Local] = []
    for line in request.requirements:
        check_requirement(line)
        text = COMMENT.sub("", line).strip()
        local = _local(text)
        lines.append(text if local is None else _absolute(local, request.base))
    reader = _FileReader(request)
    files = tuple(reader.read(file) for file in request.requirement_files)
    files = tuple(
        ParsedFile(file.name, file.lines, index in reader.constraints - reader.included)
        for index, file in enumerate(files)
    )
    if "require-hashes" in reader.options:
        files = tuple(_without_needless(file, files) for file in files)
    options = {name: tuple(values) for name, values in reader.options.items()}
    return ParsedRequest(request.python, tuple(lines), files, options, request.variables, request.projects)


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
                "Give the absolute path on the server's machine: --pip /home/me/project",
            )
        path = base / path
    return replace(local, path=Path(os.path.normpath(path)))


def _without_needless(file: ParsedFile, files: Sequence[ParsedFile]) -> ParsedFile:
    """A file of constraints without those that do not matter where hashes are required."""
    if not file.constraints_only:
        return file
    texts = [line for line in file.lines if isinstance(line, str)]
    others = [line for line in file.lines if not isinstance(line, str)]
    return replace(file, lines=(*needed(texts, pins(files), file.name), *others))


def pins(files: Sequence[ParsedFile]) -> dict[str, Requirement]:
    """The requirements in files that do not only hold constraints, by the names of their packages."""
    lines = [line for file in files if not file.constraints_only for line in file.lines if isinstance(line, str)]
    found = [item for line in lines if not line.startswith("-") and (item := requirement_of(line))]
    return {canonicalize_name(item.name): item for item in found}


class _FileReader:
    """Reads the requirement files of one request, and collects their options and references."""

    def __init__(self, request: EnvironmentRequest) -> None:
        self._base, self._variables = request.base, request.variables
        self._names = [file.name for file in request.requirement_files]
        self.options: dict[str, list[str]] = {}
        self.constraints: set[int] = set()
        self.included: set[int] = set()

    def read(self, file: RequirementFile) -> ParsedFile:
        name = file.name.rpartition("/")[2]
        for pattern, cure in _OTHER_FILES:
            if re.fullmatch(pattern, name):
                raise InvalidConfig(f"{file.name!r} is not a requirements file.", cure.format(name))
        lines = []
        for number, text in logical_lines(file.text):
            where = f"{file.name}, line {number}"
            try:
                line = self._line(text, file.name)
            except InvalidConfig as error:
                raise InvalidConfig(f"{where}: {error.message}", error.cure) from None
            if line is not None:
                lines.append(replace(line, where=where) if isinstance(line, Local) else line)
        return ParsedFile(name if _FILE_NAME.match(name) else "requirements.txt", tuple(lines))

    def _line(self, text: str, file: str) -> Line | None:
        if text.startswith("-"):
            option, value = split_option(text)
            if option in REFERENCES:
                return self._reference(REFERENCES[option], value, file)
            if option in _FILE_OPTIONS:
                self._set_option(_FILE_OPTIONS[option], value)
                return None
            if option not in EDITABLE:
                return text if check_line(text) else None
            text = value  # an environment is never edited; a changed folder makes another one
        local = _local(text)
        if local is None:
            check_line(text)
            return text
        return _absolute(local, self._base)

    def _reference(self, option: str, value: str, file: str) -> Line:
        index = find(file, value, self._names, self._variables)
        if index is None and "://" in value:
            return f"{option} {value}"
        if index is None:
            raise InvalidConfig(f"It refers to {value!r}, which was not sent.", f"Send it too: --pip-req {value}")
        (self.constraints if option == "-c" else self.included).add(index)
        return Reference(option, index)

    def _set_option(self, name: str, value: str) -> None:
        if name in FLAGS:
            value = "true"
        elif name == "find-links" and "://" not in value:
            value = str(_absolute(Local(Path(value)), self._base).path)
        self.options.setdefault(name, []).append(value)
