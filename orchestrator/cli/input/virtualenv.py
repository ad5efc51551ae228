"""`--deps-from-env`: the packages of a virtual or conda environment, as exact requirements.

What an installer noted beside each package says where it came from (https://packaging.python.org/en/latest/specifications/direct-url/).
What cannot be had again is named before anything is cast. The list goes into the spec, so a rerun has the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, PathDistribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from orchestrator.capture.snapshot import Snapshot
from orchestrator.cli.input.editables import Folders
from orchestrator.cli.output import show
from orchestrator.errors import InvalidConfig, UsageError
from orchestrator.spec.requirements import PROJECT_FILES
from orchestrator.spec.run import RequirementFile, RunSpec

OPTION = "--deps-from-env"
_FILE = "virtualenv.txt"
_VARIABLES = ("VIRTUAL_ENV", "CONDA_PREFIX")
_NOT_TAKEN = frozenset({"pip", "spell-orchestrator"})
"""Every run has a pip; and spell itself need not be on an index."""
_MOST_NAMED = 10


def with_value(args: Sequence[str]) -> list[str]:
    """The command line, in which a bare `--deps-from-env` has its value: the folder after it, else the active environment.

    Raises:
        UsageError: no environment is active.
    """
    found = list(args)
    end = found.index("--") if "--" in found else len(found)
    if OPTION not in found[:end]:
        return found
    at = found.index(OPTION)
    following = found[at + 1] if at + 1 < len(found) else ""
    if following and _is_environment(Path(following)):
        return [*found[:at], f"{OPTION}={following}", *found[at + 2 :]]
    active = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    if not active:
        raise UsageError(
            f"{OPTION}: no environment is active in this shell.", f"Activate it, or name it: {OPTION}=.venv"
        )
    return [*found[:at], f"{OPTION}={active}", *found[at + 1 :]]


def with_virtualenv(spec: RunSpec, chosen: str, code: Snapshot | None, *, err: bool) -> RunSpec:
    """The spec with the packages of an environment, and its Python.

    Args:
        chosen: the folder of the environment.
        code: of the run: what was installed from folders in it is taken from there.
        err: whether the line about it goes to standard error.

    Raises:
        InvalidConfig: something in it cannot be had again. The message names each package.
    """
    root = Path(os.path.realpath(chosen))
    if not _is_environment(root):
        raise InvalidConfig(
            f"{OPTION}: {chosen!r} is no virtual or conda environment.", f"Name its folder: {OPTION}=.venv"
        )
    version, kind = _python_of(root)
    taken = _Taken(
        Folders(code) if code else None, {canonicalize_name(re.split(r"[^\w.-]", line)[0]) for line in spec.pip}
    )
    for package in _packages(root):
        taken.take(package)
    taken.lost += _contradictions(taken.packages, version)
    if taken.lost:
        shown = "".join(f"\n  {words}" for words in taken.lost[:_MOST_NAMED])
        more = len(taken.lost) - _MOST_NAMED
        raise InvalidConfig(
            f"{OPTION}: not everything in {chosen} can be had again:{shown}"
            + (f"\n  … and {more} more" if more > 0 else ""),
            "Install or remove these in the environment, or name what the run needs: --pip, --pip-req",
        )
    python = spec.python or (version if kind == "cpython" else f"{kind}{version}")
    words = [show.count(len(taken.packages), "package"), f"Python {python}"]
    words += [f"{', '.join(taken.editables)} editable"] if taken.editables else []
    show.say(f"✨ Environment from {_shown(chosen)}: {', '.join(words)}", err=err)
    for note in taken.notes:
        show.warn(note)
    file = RequirementFile(_FILE, "".join(f"{line}\n" for line in sorted(taken.lines, key=str.lower)))
    editables = tuple(dict.fromkeys((*spec.editables, *taken.editables)))
    return replace(spec, requirements=(*spec.requirements, file), python=python, editables=editables)


def _shown(chosen: str) -> str:
    path = os.path.relpath(chosen)
    return chosen if path.startswith("..") else path


def _is_environment(root: Path) -> bool:
    return (root / "pyvenv.cfg").is_file() or (root / "conda-meta").is_dir()


def _python_of(root: Path) -> tuple[str, str]:
    """The version ("3.12") and kind of its Python."""
    settings = {}
    if (root / "pyvenv.cfg").is_file():
        lines = (root / "pyvenv.cfg").read_text("utf-8", "replace").splitlines()
        settings = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    version = settings.get("version_info") or settings.get("version") or ""
    if not version:
        found = [path.name for path in (root / "conda-meta").glob("python-[0-9]*.json")]
        found += [path.name.replace("python", "python-") for path in root.glob("lib/python[0-9]*")]
        version = found[0].split("-")[1] if found else ""
    match = re.match(r"\d+\.\d+", version)
    if match is None:
        raise InvalidConfig(f"{OPTION}: {root} does not say the version of its Python.", "Name one: --python 3.12")
    return match[0], settings.get("implementation", "cpython").lower()


def _packages(root: Path) -> Iterator[Distribution]:
    """Each package once; the folders are those of the environment alone, not of a Python below it."""
    seen = set()
    places = dict.fromkeys(os.path.realpath(path) for path in sorted(root.glob("lib*/*/site-packages")))
    for package in distributions(path=list(places)):
        name = canonicalize_name(package.metadata["Name"] or "")
        if name and name not in seen:
            seen.add(name)
            yield package


@dataclass(slots=True)
class _Taken:
    """What was taken from an environment, and what cannot be.

    Attributes:
        folders: of the run's code; None without code.
        typed: the names of packages that are asked for beside it, and win.
    """

    folders: Folders | None
    typed: set[str]
    packages: dict[str, Distribution] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    editables: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def take(self, package: Distribution) -> None:
        name = str(package.metadata["Name"])
        if canonicalize_name(name) in _NOT_TAKEN or canonicalize_name(name) in self.typed:
            return
        self.packages[canonicalize_name(name)] = package
        origin = _origin(package)
        url = str(origin.get("url", ""))
        if not url:
            self.lines.append(f"{name}=={package.version}")
        elif isinstance(vcs := origin.get("vcs_info"), dict):
            self.lines.append(f"{name} @ {vcs.get('vcs')}+{url}@{vcs.get('commit_id')}{_below(origin)}")
        elif not url.startswith("file:"):
            self.lines.append(f"{name} @ {url}{_hash_of(origin)}")
        else:
            self._local(name, Path(unquote(urlsplit(url).path)), origin)

    def _local(self, name: str, path: Path, origin: dict[str, Any]) -> None:
        folder = self.folders.project_at(path) if self.folders else ""
        if folder:
            self.editables.append(folder)
        elif any((path / known).is_file() for known in PROJECT_FILES):
            self.lines.append(f"{name} @ {path.as_uri()}")
            self.notes.append(f"{name} is installed as it is now in {path}, which is not in the run's code.")
        elif path.is_file() and (not (wanted := _hash_of(origin)) or wanted == f"#sha256={_sha256(path)}"):
            self.lines.append(f"{name} @ {path.as_uri()}")
        else:
            why = (
                "has changed since"
                if path.is_file()
                else "holds no project now"
                if path.is_dir()
                else "does not exist now"
            )
            self.lost.append(f"{name}: it was installed from {path}, which {why}")


def _origin(package: Distribution) -> dict[str, Any]:
    """Where a package came from, if not from an index."""
    if (package.read_text("INSTALLER") or "").strip() == "conda":
        return {}  # it names a folder of the machine where conda's package was built
    try:
        found = json.loads(package.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    if not found and isinstance(package, PathDistribution):
        place = Path(str(package.locate_file("")))
        link = place / f"{package.metadata['Name']}.egg-link"  # of `setup.py develop`
        if place.name != "site-packages":
            return {"url": place.as_uri()}
        if link.is_file():
            return {"url": Path(link.read_text().split("\n")[0]).as_uri()}
    return found if isinstance(found, dict) else {}


def _below(origin: dict[str, Any]) -> str:
    return f"#subdirectory={origin['subdirectory']}" if origin.get("subdirectory") else ""


def _hash_of(origin: dict[str, Any]) -> str:
    info = origin.get("archive_info")
    hashes = info.get("hashes") if isinstance(info, dict) else None
    found = hashes.get("sha256", "") if isinstance(hashes, dict) else ""
    return f"#sha256={found}" if found else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _contradictions(packages: dict[str, Distribution], version: str) -> Iterator[str]:
    """Yield what makes the list impossible to install: pip only warns of it, uv refuses it."""
    known: dict[str, Any] = {**default_environment(), "python_version": version, "extra": ""}
    for name, package in packages.items():
        for line in package.requires or ():
            try:
                need = Requirement(line)
            except InvalidRequirement:
                continue
            other = packages.get(canonicalize_name(need.name))
            if other is None or (need.marker and not need.marker.evaluate(known)):
                continue
            if need.specifier and not need.specifier.contains(other.version, prereleases=True):
                yield f"{name} {package.version} needs {need.name}{need.specifier}, and {other.version} is installed"
