"""Reads requirement files, so that a spec has their text and not their place: from this machine, the run's code, or a URL."""

from __future__ import annotations

import itertools
import os
import posixpath
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol
from urllib.parse import unquote, urljoin, urlsplit

from orchestrator.capture.snapshot import Snapshot
from orchestrator.cli.output import show
from orchestrator.errors import InvalidConfig
from orchestrator.spec.fields import FileName
from orchestrator.spec.redaction import redacted
from orchestrator.spec.requirements import (
    PROJECT_FILES,
    Line,
    beside,
    filled,
    find,
    from_file,
    logical_lines,
    names_path,
    redirected,
    references,
    replaced,
    split_option,
)
from orchestrator.spec.run import RequirementFile
from orchestrator.spec.texts import decoded, text_of

_LONGEST_BYTES = 4 << 20
_MOST_FILES = 200  # a web server could name ever more
_TIMEOUT_S = 30
_SHOWN = 5
_SPLIT = re.compile(r"([^\s;\[]+)(.*)", re.DOTALL)


class _Source(Protocol):
    """Where one file is.

    Attributes:
        name: of the file in the spec, relative to the same folder as those of the files that refer to it, if no other has it.
        place: tells it from all other files.
    """

    name: str
    place: str

    def text(self) -> str: ...

    def other(self, value: str) -> _Source:
        """The file that this one refers to as `value`."""


def requirement_files(
    names: Sequence[FileName], env: Mapping[str, str], code: Snapshot | None
) -> tuple[RequirementFile, ...]:
    """These files, and the files that they refer to (`-r other.txt`), each once.

    Args:
        env: the run's variables, for `${NAME}` in references. In those to files here, the variables of this shell count too.
        code: of the run, if it is not that of the current folder.

    Raises:
        InvalidConfig: one cannot be read.
    """
    todo = [_source(name, env, code) for name in names]
    found: dict[str, _Read] = {}
    while todo:
        source = todo.pop(0)
        if source.place not in found:
            if len(found) == _MOST_FILES:
                raise InvalidConfig(f"The requirement files name more than {_MOST_FILES} files.", "Join some of them.")
            source.name = _own_name(source.name, [other.source.name for other in found.values()])
            text = source.text()
            found[source.place] = _Read(source, text, [*_others(source, text)])
            todo += [other for _, _, other in found[source.place].others]
    return tuple(RequirementFile(file.source.name, _resolved(file, found, env)) for file in found.values())


class _Read(NamedTuple):
    """A file that was read, and the others that it refers to: line, words, and what they mean."""

    source: _Source
    text: str
    others: list[tuple[Line, str, _Source]]


def _own_name(name: str, taken: Sequence[str]) -> str:
    """A name that no other file has, in a numbered folder if need be, and that does not lead upwards."""
    while name.startswith("../"):
        name = name.removeprefix("../")
    numbered = (f"{number}/{name}" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if free not in taken)


def _resolved(file: _Read, found: Mapping[str, _Read], env: Mapping[str, str]) -> str:
    """The text, in which each reference leads to what it means here: those that the server would misread are changed."""
    names, places, name = [each.source.name for each in found.values()], list(found), file.source.name
    targets = {}
    for line, value, other in file.others:
        index = places.index(other.place)
        if find(name, value, names, env) != index:
            targets[line.number] = from_file(name, names[index])
    return redirected(file.text, targets) if targets else file.text


def _others(source: _Source, text: str) -> Iterator[tuple[Line, str, _Source]]:
    for line, value in references(text):
        try:
            yield line, value, source.other(value)
        except InvalidConfig as error:
            raise InvalidConfig(f"{source.name}, line {line.number}: {error.message}", error.cure) from error


def _source(name: FileName, env: Mapping[str, str], code: Snapshot | None) -> _Source:
    written = name.written
    if "://" in written:
        return _at_url(written, env, is_local=True)
    here = _Here(name.folder / written, posixpath.normpath(written) if not os.path.isabs(written) else "", env)
    if code is None or os.path.isabs(written) or (here.path.is_file() and not name.is_typed):
        return here
    there = _InCode(code, posixpath.normpath(posixpath.join(code.code.subdir, written)), env)
    if there.is_there:
        return there
    if not here.path.is_file():
        raise there.missing()
    show.warn(f"The run's code has no {there.name}: the file of this folder is used.")
    return here


class _Here:
    """A file of this machine."""

    def __init__(self, path: Path, name: str, env: Mapping[str, str]) -> None:
        self.path, self.name, self._env = path, name or path.name, env
        self.place = os.path.realpath(path)

    def text(self) -> str:
        return "\n".join(self._located(line) for line in text_of(self.path).split("\n"))

    def _located(self, line: str) -> str:
        """A line with absolute paths of packages and of folders of wheels, as the server has another working directory."""
        words = next(logical_lines(line.removesuffix("\\")), None)
        if words is None:
            return line
        option, value = split_option(words.text) if words.text.startswith("-") else ("", words.text)
        if not names_path(option, value):
            return line
        place, rest = _SPLIT.findall(value)[0]
        folders = [self.path.parent] if option in ("-f", "--find-links") else [Path(), self.path.parent]  # as pip does
        found = next((folder for folder in folders if (folder / place).exists()), folders[0])
        located = f"{option} {os.path.normpath((found / place).absolute())}{rest}".strip()
        return located + ("\\" if line.endswith("\\") else "")

    def other(self, value: str) -> _Source:
        if "://" in value:
            return _at_url(value, self._env, is_local=True)
        value = filled(value, self._env)
        path = self.path.parent / filled(value, os.environ)
        if not path.is_file():
            raise InvalidConfig(f"It refers to {value!r}, but there is no file {str(path)!r}.")
        return _Here(path, beside(self.name, value), self._env)


class _InCode:
    """A file of the run's code."""

    def __init__(self, code: Snapshot, path: str, env: Mapping[str, str], name: str = "") -> None:
        self.name, self.place, self._code, self._path, self._env = name or path, f"code:{path}", code, path, env
        self._entry = next((entry for entry in code.manifest.entries if entry.path == path), None)

    @property
    def is_there(self) -> bool:
        return self._entry is not None

    def missing(self) -> InvalidConfig:
        code = self._code.code
        paths = [entry.path for entry in self._code.manifest.entries]
        alike = [path for path in paths if "requirements" in path and path.endswith((".txt", ".in"))][:_SHOWN]
        where = f"the code of {code.url}" if code.url else f"commit {code.commit[:8]}"
        return InvalidConfig(
            f"There is no file {self._path!r} in {where}.", f"It has {', '.join(alike)}." if alike else ""
        )

    def text(self) -> str:
        assert self._entry is not None
        with self._code.open_blob(self._entry.digest) as file:
            text = decoded(file.read(), self.name)
        folders = {}
        for number, line in logical_lines(text):
            option, value = split_option(line) if line.startswith("-") else ("", line)
            if names_path(option, value):
                folders[number] = f"{option} {self._project(value) or self._refuse(number, line)}".strip()
        return replaced(text, folders) if folders else text

    def _project(self, value: str) -> str:
        """The folder of a project in the code, as seen from where the command works; "" if it is none."""
        place, rest = _SPLIT.findall(value)[0]
        place, bracket, extras = place.partition("[")
        subdir = self._code.code.subdir
        for folder in (subdir, posixpath.dirname(self._path)):
            path = posixpath.normpath(posixpath.join(folder, place))
            names = {posixpath.normpath(f"{path}/{name}") for name in PROJECT_FILES}
            if any(entry.path in names for entry in self._code.manifest.entries):
                return f"./{posixpath.relpath(path, subdir or '.')}{bracket}{extras}{rest}"
        return ""

    def _refuse(self, number: int, line: str) -> NoReturn:
        code = self._code.code
        words = f"{self.name}, line {number}: {line!r} is a path in the run's code, which a build does not see."
        if not code.url:
            raise InvalidConfig(words, "Name the packages of the project one by one.")
        cure = f"Without the line, give the project by its URL: --pip 'git+{_as_url(code.url)}@{code.commit}'"
        raise InvalidConfig(words, cure)

    def other(self, value: str) -> _Source:
        if "://" in value:
            return _at_url(value, self._env, is_local=False)
        value = filled(value, self._env)
        if posixpath.isabs(value):
            raise InvalidConfig(f"It refers to {value!r}, which is not a file of the run's code.")
        found = _InCode(self._code, beside(self._path, value), self._env, beside(self.name, value))
        if not found.is_there:
            raise found.missing()
        return found


def _as_url(place: str) -> str:
    """The URL, for pip and uv, of a repository as git names it: `/path` or `git@host:path`."""
    if "://" in place:
        return place
    return f"file://{place}" if place.startswith("/") else f"ssh://{place.replace(':', '/', 1)}"


def _at_url(url: str, env: Mapping[str, str], *, is_local: bool) -> _Source:
    """The file at a URL; `file:` only if a person of this machine named it, as others must not read what is here."""
    parts = urlsplit(url)
    if parts.scheme.lower() == "file" and not is_local:
        raise InvalidConfig(
            f"It refers to {redacted(url)!r}, a file of this machine, but is not of this machine itself.",
            "If you want that file, give it with --pip-req.",
        )
    if parts.scheme.lower() == "file":
        return _Here(Path(unquote(parts.path)), "", env)
    if parts.scheme.lower() not in ("http", "https"):
        raise InvalidConfig(f"{redacted(url)!r} is not the URL of a file.", "Give a path, or a URL of http or https.")
    return _AtUrl(url, env)


class _AtUrl:
    """A file of a web server, read now: the run has the text of today."""

    def __init__(self, url: str, env: Mapping[str, str], name: str = "") -> None:
        self.name = name or urlsplit(url).path.rpartition("/")[2] or "requirements.txt"
        self.place, self._url, self._env = url, url, env

    def text(self) -> str:
        shown = redacted(self._url)
        text = decoded(self._content(shown), shown)
        if text.lstrip()[:9].lower() in ("<!doctype", "<html>"):
            raise InvalidConfig(f"{shown} is a web page.", "Give the URL of the plain file; GitHub calls it 'Raw'.")
        return text

    def _content(self, shown: str) -> bytes:
        import httpx  # 40 ms; few files are named by URL

        end, content = time.monotonic() + _TIMEOUT_S, bytearray()
        try:
            with httpx.stream("GET", filled(self._url, self._env), follow_redirects=True, timeout=_TIMEOUT_S) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise InvalidConfig(f"{shown} cannot be read: the server answered {answer.status_code}.")
                for block in answer.iter_bytes():
                    content += block
                    if len(content) > _LONGEST_BYTES:
                        raise InvalidConfig(f"{shown} is longer than {_LONGEST_BYTES >> 20} MiB: no requirements file.")
                    if time.monotonic() > end:
                        raise InvalidConfig(f"{shown} cannot be read: it did not end within {_TIMEOUT_S} s.")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InvalidConfig(f"{shown} cannot be read: {error or type(error).__name__}.") from error
        return bytes(content)

    def other(self, value: str) -> _Source:
        if "://" in value:
            return _at_url(value, self._env, is_local=False)
        return _AtUrl(urljoin(self._url, filled(value, self._env)), self._env, beside(self.name, value))
