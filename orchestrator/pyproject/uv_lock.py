"""uv.lock, and the lock of a script (`s.py.lock`): exported by uv itself, and compared with what the project says.

`uv export --frozen` reads the lock and the projects, asks no index and builds nothing. It does not look whether the lock is
that of the project; `--locked` does, but refuses a changed version of the project, too, and may ask an index.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from orchestrator.content.scratch import Scratch
from orchestrator.errors import InvalidConfig
from orchestrator.pyproject import local
from orchestrator.pyproject.asked import Asked
from orchestrator.pyproject.files import CodeFiles, joined, parsed
from orchestrator.pyproject.lines import Lines, inside, marker_of, named, requirement
from orchestrator.pyproject.metadata import all_groups
from orchestrator.pyproject.platforms import counts, environments, fits

_LIMIT_S = 60
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_WHEELS = re.compile(r"^wheels = \[\n((?:    \{[^\n]*\},\n)+)\]\n", re.MULTILINE)
_WHEEL = re.compile(r'\b(url|path|filename) = "([^"\\]*)"(?:, hash = "([^"\\]*)")?')
_Asked = tuple[str, frozenset[str], SpecifierSet]


def read(files: CodeFiles, lock: Mapping[str, Any], root: str, project: str, asked: Asked, python: str) -> Lines:
    """The packages of a lock.

    Args:
        lock: what `table` returns.
        root: the folder with uv.lock.
        project: the folder of the project in it that counts: `root`, or that of a member of the workspace.
        python: the version that was asked for; "" for any.

    Raises:
        InvalidConfig: the lock does not match its projects, is for another platform, or uv refuses it.
    """
    path = joined(root, "uv.lock")
    _check_match(files, root, path, lock)
    _check_platform(path, lock, python)
    with Scratch() as folder:
        for name in ("pyproject.toml", "uv.toml"):
            for other in files.below(root, name):
                _write(folder / other, files.text(other))
        _write(folder / path, files.text(path))
        words = [f"--group={name}" for name in asked.groups] + [f"--extra={name}" for name in asked.extras]
        text = _export(folder / project, path, *words)
    return _lines(files, root, path, lock, text, python)


def read_script(files: CodeFiles, lock: Mapping[str, Any], script: str, python: str) -> Lines:
    """The packages of a script that has a lock. Raises as `read`."""
    path = f"{script}.lock"
    with Scratch() as folder:
        for name in (script, path):
            _write(folder / name, files.text(name))
        text = _export(folder, path, "--script", script)
    _check_platform(path, lock, python)
    return _lines(files, os.path.dirname(script), path, lock, text, python)


def table(files: CodeFiles, path: str) -> dict[str, Any]:
    """The content of a lock, whose `wheels` are read as uv writes them: most of a lock is wheels, and the reader is slow.

    Raises:
        InvalidConfig: it cannot be read.
    """
    lists: list[list[dict[str, str]]] = []

    def shorter(found: re.Match[str]) -> str:
        items = (_WHEEL.search(line) for line in found[1].splitlines())
        lists.append([{item[1]: item[2], **({"hash": item[3]} if item[3] else {})} for item in items if item])
        return f"wheels = {len(lists) - 1}" + "\n" * found[0].count("\n")  # so that messages name the right line

    lock = parsed(_WHEELS.sub(shorter, files.text(path)), path)
    for package in lock.get("package", ()):
        if isinstance(package.get("wheels"), int):
            package["wheels"] = lists[package["wheels"]]
    return lock


def requires(lock: Mapping[str, Any]) -> str:
    """The versions of Python that a lock is for."""
    return str(lock.get("requires-python", ""))


def check_script(path: str, lock: Mapping[str, Any], dependencies: list[str]) -> None:
    """Refuse the lock of a script whose header asks for other packages."""
    had = {_as_asked(item) for item in lock.get("manifest", {}).get("requirements", ())}
    wanted = {_of_line(text, path) for text in dependencies}
    if had != wanted:
        _refuse(path, path.removesuffix(".lock"), had, wanted, f"uv lock --script {path.removesuffix('.lock')}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _export(cwd: Path, path: str, *words: str) -> str:
    from uv import find_uv_bin  # 1 ms: few runs are not answered from what is remembered

    try:
        uv = find_uv_bin()
    except FileNotFoundError:
        raise InvalidConfig(f"{path} needs uv, which is not installed.", "Install it: pip install uv") from None
    command = [uv, "export", "--frozen", "--no-cache", "--quiet", "--no-header", "--no-annotate", "--no-progress"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "VIRTUAL_ENV", "CONDA_"))}
    try:
        done = subprocess.run(
            [*command, *words],
            cwd=cwd,
            env=env | {"NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidConfig(f"{path}: uv could not read it: {error}") from error
    if done.returncode:
        said = " ".join(part.strip() for part in done.stderr.removeprefix("error: ").split("\n") if part.strip(" │|^"))
        raise InvalidConfig(f"{path}: uv says: {said}", "Make the lock again: uv lock. Or do without: --no-project")
    return done.stdout


# -- what uv has written ----------------------------------------------------------------------------------------------


def _lines(files: CodeFiles, root: str, path: str, lock: Mapping[str, Any], text: str, python: str) -> Lines:
    found = Lines()
    kept, foreign = _hashes(lock)
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split(" --hash=")
        hashes = [f"--hash={word.strip()}" for word in words[1:] if word.strip() in kept]
        _add(files, root, path, found, words[0].strip(), hashes)
    for package in lock.get("package", ()):
        source = package.get("source", {})
        if "registry" in source:
            _add_registry(files, root, path, found, str(source["registry"]), package)
    for line in found.requirements:
        if named(line) in foreign and counts(marker_of(line), environments(python)):
            raise InvalidConfig(
                f"{path} has {line.partition(' ')[0]} for other platforms only: {foreign[named(line)]}.",
                "Add this platform to tool.uv.required-environments in pyproject.toml, and make the lock again: uv lock",
            )
    return found


def _add(files: CodeFiles, root: str, path: str, found: Lines, line: str, hashes: list[str]) -> None:
    editable = line.removeprefix("-e ").strip()
    target, _, marker = editable.partition(" ; ")
    if line.startswith("-e ") or target.startswith((".", "/", "file:")):
        if target.lower().endswith(_ARCHIVES):
            place = Path(local.place(files, path, root, target)).as_uri()
            found.requirements.append(" ".join([f"{place} ; {marker}" if marker else place, *hashes]))
        elif not marker or counts(marker, environments("")):
            found.edit(inside(root, target))
    elif line:
        found.requirements.append(" ".join([line, *hashes]))


def _add_registry(
    files: CodeFiles, root: str, path: str, found: Lines, registry: str, package: Mapping[str, Any]
) -> None:
    if "://" in registry and not registry.startswith("file:"):
        found.indexes.append(registry)
        return
    folder = local.place(files, path, root, registry)
    wheels = [str(item["path"]) for item in package.get("wheels", ()) if "path" in item]
    is_flat = all(
        os.path.dirname(os.path.join(registry, wheel)).rstrip("/") == registry.rstrip("/") for wheel in wheels
    )
    (found.links if is_flat else found.indexes).append(folder if is_flat else Path(folder).as_uri())


def _hashes(lock: Mapping[str, Any]) -> tuple[set[str], dict[str, str]]:
    """The hashes of the files that can be installed here, and the packages that have no such file, with one that they have.

    A lock has the files of every platform; those of a large one are too many to keep with each run.
    """
    kept: set[str] = set()
    foreign: dict[str, str] = {}
    for package in lock.get("package", ()):
        wheels, sdist = package.get("wheels", ()), package.get("sdist")
        mine = [item for item in wheels if fits(_file(item))]
        kept |= {str(item["hash"]) for item in (*mine, *([sdist] if sdist else [])) if "hash" in item}
        if wheels and not mine and not sdist:
            foreign[canonicalize_name(str(package["name"]))] = _file(wheels[0])
    return kept, foreign


def _file(item: Mapping[str, Any]) -> str:
    whole = str(item.get("filename") or item.get("url") or item.get("path") or "")
    return whole.partition("#")[0].rpartition("/")[2].replace("%2B", "+")


# -- whether the lock is that of its projects, and for this platform -----------------------------------------------------


def _check_platform(path: str, lock: Mapping[str, Any], python: str) -> None:
    markers = [str(marker) for marker in lock.get("supported-markers", ())]
    if markers and not any(counts(marker, environments(python)) for marker in markers):
        raise InvalidConfig(
            f"{path} is for another platform: {' or '.join(markers)}.",
            "Add this one to tool.uv.environments in pyproject.toml, and make the lock again: uv lock",
        )


def _check_match(files: CodeFiles, root: str, path: str, lock: Mapping[str, Any]) -> None:
    for package in lock.get("package", ()):
        source = package.get("source", {})
        folder = source.get("editable") or source.get("virtual") or source.get("directory")
        if folder is None or "metadata" not in package:
            continue
        where = joined(inside(root, str(folder)), "pyproject.toml")
        if where in files:
            _check_package(files.table(where), where, path, package["metadata"])


def _check_package(table: Mapping[str, Any], where: str, path: str, metadata: Mapping[str, Any]) -> None:
    project = table.get("project", {})
    had = {_as_asked(item) for item in metadata.get("requires-dist", ())}
    if "dependencies" not in project.get("dynamic", ()) and "optional-dependencies" not in project.get("dynamic", ()):
        texts = [*project.get("dependencies", ())]
        texts += [text for extra in project.get("optional-dependencies", {}).values() for text in extra]
        wanted = {_of_line(str(text), where) for text in texts}
        if had != wanted:
            _refuse(path, where, had, wanted, "uv lock")
    groups = all_groups(table, where)
    in_lock = {name: {_as_asked(item) for item in items} for name, items in metadata.get("requires-dev", {}).items()}
    for name, texts in groups.items():
        wanted = {_of_line(text, where) for text in texts}
        if wanted != in_lock.get(name, set()):
            _refuse(path, f"group {name!r} of {where}", in_lock.get(name, set()), wanted, "uv lock")


def _as_asked(item: Mapping[str, Any]) -> _Asked:
    """What the lock says that was asked for. Markers are left out: uv writes them in another form."""
    extras = frozenset(canonicalize_name(name) for name in item.get("extras", ()))
    try:
        return canonicalize_name(str(item["name"])), extras, SpecifierSet(str(item.get("specifier", "")))
    except InvalidSpecifier:
        return canonicalize_name(str(item["name"])), extras, SpecifierSet()


def _of_line(text: str, where: str) -> _Asked:
    found: Requirement = requirement(text, where)
    return canonicalize_name(found.name), frozenset(canonicalize_name(name) for name in found.extras), found.specifier


def _refuse(path: str, where: str, had: set[_Asked], wanted: set[_Asked], cure: str) -> None:
    new, old = sorted(_shown(wanted - had)), sorted(_shown(had - wanted))
    words = [f"asks for {', '.join(new)}"] if new else []
    words += [f"not for {', '.join(old)}" if new else f"does not ask for {', '.join(old)} any more"] if old else []
    raise InvalidConfig(
        f"{path} does not match {where}, which {', and '.join(words)}.",
        f"Make the lock again: {cure}. Or do without: --no-project",
    )


def _shown(asked: set[_Asked]) -> Iterator[str]:
    for name, extras, specifier in asked:
        yield f"{name}{'[' + ','.join(sorted(extras)) + ']' if extras else ''}{specifier}"
