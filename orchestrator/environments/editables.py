"""What a build of projects has made, and how a run gets it: into its layer, with the paths of its own code.

The build publishes an environment that holds nothing but the projects. An editable package names the folder of its code by
absolute paths; those of the build are replaced by those at which the run sees its code. Files that a build makes inside the
code (`_version.py`, compiled modules) are kept too, and are put there for each run. A build may be hostile, so nothing of it
is read through a link, and nothing is written outside the layer.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from orchestrator.environments.installed import files_of, python_of, read_inside, site_folder
from orchestrator.environments.key import NOT_CONTENT
from orchestrator.environments.request import EnvironmentRequest, ParsedRequest, read
from orchestrator.environments.requirement_lines import requirement_of
from orchestrator.errors import BuildFailed
from orchestrator.inside.shown_packages import SHOWN

_NOTE = "spell-projects.json"
_MADE = "spell-made"
_KEPT = (".py", ".pyi", ".so")
_REWRITTEN = (".pth", ".py", ".json")
_FIRST = (b"sys.meta_path.append(_EditableFinder)", b"sys.meta_path.insert(0, _EditableFinder)")
"""setuptools' finder of packages comes last, so a folder `demo/` of the code, which is on the path of a run, would hide the
package `demo/demo/`: a folder without `__init__.py` counts as a package too, where nothing before it is found."""


def keep(environment: Path, code: Path, known: Iterable[str]) -> None:
    """Note in a new environment where its projects were built, and keep the files that the build has made beside them.

    Args:
        environment: the environment.
        code: the copy of the code, in which they were built.
        known: the paths of the files that were copied.
    """
    before = set(known)
    for path in _made(code):
        name = path.relative_to(code).as_posix()
        if name not in before:
            target = environment / _MADE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target, follow_symlinks=False)
    with (environment / _NOTE).open("x") as file:  # "x": never into a file that a container has put there
        json.dump({"code": str(code)}, file)


def _made(code: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(code):
        folders[:] = [
            name
            for name in folders
            if not (NOT_CONTENT.match(name) or name.startswith(".") or name == "target")
            and not os.path.islink(os.path.join(root, name))
        ]
        for name in files:
            path = Path(root, name)
            if name.endswith(_KEPT) and path.is_file() and not path.is_symlink():
                yield path


def made_in(environment: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that the build has made inside the code: path from the root of the code, and the file."""
    folder = environment / _MADE
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def needs(environment: Path, extras: Mapping[str, frozenset[str]]) -> list[str]:
    """Return what the projects need, as requirement lines for this Python, without the projects themselves.

    Args:
        environment: of the projects.
        extras: the wanted extras by folder.

    Raises:
        BuildFailed: a project needs a folder that is not among the projects.
    """
    version, kind = python_of(environment)
    python = {"python_version": ".".join(version.split(".")[:2]), "python_full_version": version}
    python |= {"implementation_name": kind.lower(), "platform_python_implementation": kind}
    code = _code_of(environment)
    packages = [_Package(environment, folder, code) for folder in site_folder(environment).glob("*.dist-info")]
    ours = {package.name for package in packages}
    lines: dict[str, None] = {}
    for package in packages:
        for need in package.needs(extras.get(package.folder, frozenset()), python):
            if canonicalize_name(need.name) in ours:
                continue
            place = unquote(urlsplit(need.url).path) if need.url and need.url.startswith("file:") else ""
            if place and Path(place).is_relative_to(code):
                folder = os.path.relpath(place, code)
                words = f"{package.name} needs {need.name} in the folder {folder!r}, which is not installed with it."
                raise BuildFailed(words, f"Name it too: --editable {folder}")
            need.marker = None
            lines[str(need)] = None
    return list(lines)


class _Package:
    def __init__(self, environment: Path, info: Path, code: str) -> None:
        text = read_inside(environment, info / "METADATA").decode(errors="replace")
        self._metadata = HeaderParser().parsestr(text)
        self.name = canonicalize_name(str(self._metadata["Name"]))
        url = ""
        with suppress(OSError, ValueError, KeyError, TypeError):
            url = str(json.loads(read_inside(environment, info / "direct_url.json"))["url"])
        self.folder = os.path.relpath(unquote(urlsplit(url).path), code) if url else ""

    def needs(self, extras: frozenset[str], python: Mapping[str, str]) -> Iterator[Requirement]:
        for line in self._metadata.get_all("Requires-Dist") or ():
            try:
                need = Requirement(line)
            except InvalidRequirement as error:
                raise BuildFailed(f"{self.name} names a requirement that cannot be read: {line}") from error
            known: dict[str, Any] = {**default_environment(), **python}
            if need.marker is None or any(need.marker.evaluate({**known, "extra": name}) for name in ("", *extras)):
                yield need


def _code_of(environment: Path) -> str:
    return str(json.loads(read_inside(environment, environment / _NOTE))["code"])


def add_to_layer(layer: Path, environment: Path, code: str) -> None:
    """Install the projects into the layer of a run.

    Args:
        layer: the layer, as `layer.make_layer` has made it.
        environment: of the projects.
        code: the root of the code, as the run sees it.

    Raises:
        OSError: when it cannot be written.
    """
    built = _code_of(environment)
    paths = ((built.encode(), code.encode()), (Path(built).as_uri().encode(), Path(code).as_uri().encode()))
    site = site_folder(environment)
    for info in sorted(site.glob("*.dist-info")):
        for name in files_of(environment, info):
            source = Path(os.path.normpath(site / name))
            if not source.is_relative_to(environment) or source.parts[-2] == "__pycache__":
                continue
            target = layer / source.relative_to(environment)
            if target.parent == layer / "bin" and target.name.startswith(("python", "activate")):
                continue
            content = read_inside(environment, source)
            if name.endswith(_REWRITTEN):
                for before, after in (*reversed(paths), _FIRST):
                    content = content.replace(before, after)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # a project's own command goes before that of a package
            mode = 0o755 if os.access(source, os.X_OK) else 0o644
            with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
                file.write(content)
        (layer / info.relative_to(environment) / SHOWN).touch()  # not installed by the run itself


def is_lock(request: EnvironmentRequest) -> bool:
    """Whether a request has hashes, and so names all that its projects need."""
    asked = read(request)
    return "require-hashes" in asked.options or any(" --hash" in line for line in _lines(asked))


def with_needs(request: EnvironmentRequest, needs: Sequence[str]) -> EnvironmentRequest:
    """The request, and what its projects need beside it. Exact versions stay: the person has chosen them for the projects."""
    if not needs or is_lock(request):
        return request
    pinned = {
        canonicalize_name(item.name)
        for line in _lines(read(request))
        if not line.startswith("-") and (item := requirement_of(line)) and (item.url or "==" in str(item.specifier))
    }
    more = [line for line in needs if canonicalize_name(Requirement(line).name) not in pinned]
    return replace(request, requirements=(*request.requirements, *more)) if more else request


def _lines(asked: ParsedRequest) -> list[str]:
    every = (*asked.lines, *(line for file in asked.files for line in file.lines))
    return [line for line in every if isinstance(line, str)]
