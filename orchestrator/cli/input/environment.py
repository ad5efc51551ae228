"""Gives a spec the environment that the code of the run says, and tells the person in one line what it is."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from orchestrator.capture.snapshot import Snapshot
from orchestrator.cli.output import show
from orchestrator.errors import InvalidConfig
from orchestrator.home import cache_dir
from orchestrator.pyproject.asked import KINDS, Asked, upwards
from orchestrator.pyproject.files import joined
from orchestrator.pyproject.find import Wanted, find
from orchestrator.pyproject.found import Found
from orchestrator.spec.run import RequirementFile, RunSpec, Source


def with_environment(spec: RunSpec, code: Snapshot | None, asked: Asked, *, is_local: bool, json_: bool) -> RunSpec:
    """The spec with the packages, the Python and the editable projects that its code says.

    Packages that the spec has come to those; of one that a lock has, too, that of the spec counts. Requirement files of the
    spec replace what would be found.

    Args:
        is_local: whether the code is that of the current folder.
        json_: standard output is JSON, so the line goes to standard error.

    Raises:
        InvalidConfig: what the code says is wrong.
    """
    chosen = [f"--group {name}" for name in asked.groups] + [f"--extra {name}" for name in asked.extras]
    if asked.nothing or spec.requirements:
        if chosen:
            words = "--no-project" if asked.nothing else "--pip-req, which takes the place of the project"
            raise InvalidConfig(
                f"{chosen[0]} chooses from the project of the code, and so cannot stand beside {words}."
            )
        return spec
    found = _find(spec, code, asked, is_local=is_local) if code else None
    if code:
        _warn_untracked(code, found)
    if found is None:
        if chosen:
            raise InvalidConfig(
                f"{chosen[0]} chooses from a project, but the code of the run has none.",
                f"It would be one of {', '.join(KINDS)}, in this folder or above it, and tracked by git.",
            )
        return spec
    show.say(f"✨ {line_of(found, spec)}", err=json_)
    return applied(spec, found, asked)


def _warn_untracked(code: Snapshot, found: Found | None) -> None:
    """Warn about a file that would say the environment, if the run had it."""
    places = [joined(folder, name) for folder in upwards(code.code.subdir) for name in KINDS]
    there = [path for path in places if path in code.untracked]
    if there and (found is None or found.file not in places or places.index(there[0]) < places.index(found.file)):
        show.warn(
            f"{there[0]} is not tracked by git, so the run does not have it, nor the packages that it names: git add {there[0]}"
        )


def _find(spec: RunSpec, code: Snapshot, asked: Asked, *, is_local: bool) -> Found | None:
    root = ""
    if is_local:
        depth = code.code.subdir.count("/") + 1 if code.code.subdir else 0
        root = str([Path.cwd(), *Path.cwd().parents][depth])
    wanted = Wanted(code, spec.filled_command, asked, spec.python, spec.env, root, bool(spec.image))
    return find(wanted, cache_dir() / "environments")


def applied(spec: RunSpec, found: Found, asked: Asked) -> RunSpec:
    """The spec with what was found."""
    lines = found.lines
    if spec.pip and found.is_exact:
        from orchestrator.pyproject.lines import named, without  # 10 ms: packaging; few runs add packages to a lock

        own = {named(line) for line in spec.pip} - {""}
        lines = tuple((name, without(text, own)) for name, text in lines)
    return dataclasses.replace(
        spec,
        requirements=tuple(RequirementFile(name, text) for name, text in lines),
        python=found.python or spec.python,
        editables=(*spec.editables, *(item for item in found.editables if item not in spec.editables)),
        source=Source(found.file, asked.groups, asked.extras),
    )


def line_of(found: Found, spec: RunSpec) -> str:
    """The line that says what was found."""
    what = "package" if found.is_exact else "requirement"
    python = found.python or ("" if spec.image else "{}.{}".format(*sys.version_info))
    words = [show.count(found.packages, what), f"Python {python}" if python else ""]
    words += [f"{', '.join(map(_shown, found.editables))} editable" if found.editables else ""]
    return f"Environment from {found.file}: {', '.join(filter(None, words))}"


def _shown(editable: str) -> str:
    return f"this project{editable[1:]}" if editable.partition("[")[0] == "." else editable
