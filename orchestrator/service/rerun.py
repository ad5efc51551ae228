"""Makes the spec of a rerun: the same code and mounts, and exactly the packages and the image that the run had.

While its environment exists and its spec still leads to it, the spec stays unchanged. Otherwise, or if the rerun adds
packages, a requirements file with the resolved packages replaces the requested ones.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import (
    InvalidName,
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from orchestrator.environments import Base
from orchestrator.environments.request import FLAGS, Local, ParsedRequest, read
from orchestrator.errors import Conflict, InvalidConfig
from orchestrator.lifecycle.context import Context
from orchestrator.records.runs import RunRecord
from orchestrator.spec.fields import FIELDS, joined
from orchestrator.spec.redaction import redacted, without_users
from orchestrator.spec.run import PLACEHOLDER, RequirementFile, RunSpec, to_wire
from orchestrator.spec.validate import read_spec

_FIXED = [field.name for field in FIELDS if field.is_fixed]
_PACKAGES = {field.name for field in FIELDS if field.is_environment}
_HIDDEN = "****@"  # users that the list of installed packages does not contain


@dataclass(frozen=True, slots=True)
class Repeat:
    """The spec of a rerun.

    Attributes:
        environment, image: those of the run, which the rerun uses; None if they are built again.
        warnings: possible differences from the run.
    """

    spec: RunSpec
    environment: str | None
    image: str | None
    warnings: list[str]


def repeat(context: Context, run: RunRecord, changes: Mapping[str, Any], *, may_change: Collection[str] = ()) -> Repeat:
    """Make the spec of a rerun.

    Args:
        run: with the values of its variables.
        changes: fields of a spec, as JSON values. They are joined to those of the run as the table of `spec.fields` says; a
            requirement replaces that of the same package.
        may_change: fields that a rerun keeps, and this one may change. Another command loses the parameters that it lacks.

    Raises:
        InvalidConfig: a change is not possible, or a local package is gone.
    """
    refuse_imported(run)
    for name in _FIXED:
        if name in changes and name not in may_change:
            raise InvalidConfig(f"A rerun cannot change the {name} of its run.", "Cast a new run with: spell run")
    spec = dataclasses.replace(read_spec(run.spec), executor=run.executor)
    spec, base, warnings = _on_same_image(context, run, spec, changes)
    environment = None
    if run.environment:
        spec, environment, more = _with_same_packages(context, run, spec, base, changes)
        warnings += more
    elif run.spec["pip"] or run.spec["requirements"] or run.spec["frameworks"]:
        warnings.append(f"Run {run.number} ended before its packages were installed, so they are resolved now.")
    asked = to_wire(spec)
    if isinstance(command := changes.get("command"), str):
        wanted = set(PLACEHOLDER.findall(command))
        asked["params"] = {name: value for name, value in asked["params"].items() if name in wanted}
    if isinstance(secret := changes.get("secrets"), Mapping):  # a variable that was plain, and is a secret now
        asked["env"] = {name: value for name, value in asked["env"].items() if name not in secret}
    merged = read_spec(joined(asked, changes))
    return Repeat(merged, environment, (base.image or None) if base else None, warnings)


def refuse_imported(run: RunRecord) -> None:
    """Check that a run has a command.

    Raises:
        Conflict: it was imported.
    """
    if run.imported:
        raise Conflict(
            f"Run {run.number} was imported from {run.imported.tracker}, which knows neither its code nor its environment.",
            "Cast it anew with its parameters: spell run; or write it for MLflow: spell export --to mlflow "
            f"{run.number} PATH",
        )


def _on_same_image(
    context: Context, run: RunRecord, spec: RunSpec, changes: Mapping[str, Any]
) -> tuple[RunSpec, Base | None, list[str]]:
    """The spec with the run's image, and the base of its environment; None for another base."""
    executor = context.executors.get(run.executor)
    elsewhere = "image" in changes or changes.get("executor", run.executor) != run.executor
    if (
        executor is None or elsewhere or executor.lacks() or not run.environment
    ):  # the environment is built after the image
        return spec, None, []
    if run.image:
        if not executor.has_image(run.image):
            words = f"The image of run {run.number} was removed, so it is built again and may contain other versions."
            return spec, None, [words]
        spec = dataclasses.replace(spec, image=run.image, apt=())
    return spec, executor.base(spec, 0, Path(os.devnull), lambda: False), []


def _with_same_packages(
    context: Context, run: RunRecord, spec: RunSpec, base: Base | None, changes: Mapping[str, Any]
) -> tuple[RunSpec, str | None, list[str]]:
    """The spec with the run's packages, the key of its environment if it stays, and possible differences."""
    try:
        request = context.request_as_built(spec, base)
        asked = read(request)
        if base and not _PACKAGES & set(changes):
            key = context.environments.key(request, base)
            if key == run.environment and context.environments.get(key):
                return spec, key, []
    except InvalidConfig as error:
        raise InvalidConfig(f"Run {run.number} cannot be cast again: {error.message}", error.cure) from error
    if asked.bare:
        return spec, None, []
    lock = RequirementFile(f"run-{run.number}.txt", "\n".join(_locked(asked, run.packages, changes)) + "\n")
    pinned = dataclasses.replace(spec, pip=(), frameworks=(), requirements=(lock,))
    if base and not base.image and run.python and spec.python[:1] in ("", *"0123456789"):
        # the image decides its Python, and other kinds of Python have other version numbers
        pinned = dataclasses.replace(pinned, python=run.python)
    loose = [*(str(local.path) for local in asked.locals()), *map(redacted, _with_users(asked))]
    return (
        pinned,
        None,
        [f"These packages are used as they are now, and may differ from that run's: {', '.join(loose)}"]
        if loose
        else [],
    )


def _locked(asked: ParsedRequest, packages: Iterable[str], changes: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a requirements file for exactly these packages, with their sources."""
    for option, values in asked.options.items():
        if option == "require-hashes":
            continue  # the list of installed packages has versions, and no hashes
        yield from (f"--{option}" if option in FLAGS else f"--{option} {value}" for value in values)
    yield from (line for file in asked.files for line in file.lines if isinstance(line, str) and line.startswith("-"))
    yield from _with_users(asked)
    others = set()
    for local in asked.locals():
        yield f"{local.name} @ {local.path}{local.tail}" if local.name else f"{local.path}{local.tail}"
        others.add(_name_of(local))
    others |= {_name(line) for line in changes.get("pip", ()) if isinstance(line, str)}
    yield from (line for line in packages if _HIDDEN not in line and _name(line) not in others)


def _with_users(asked: ParsedRequest) -> list[str]:
    """The lines of packages that are listed without the user in their URL, so that the list does not pin them."""
    lines = (*asked.lines, *(line for file in asked.files for line in file.lines))
    return [
        line for line in lines if isinstance(line, str) and not line.startswith("-") and without_users(line) != line
    ]


def _name(line: str) -> str:
    """The package that a requirement names; "" for none."""
    try:
        return canonicalize_name(Requirement(line).name)
    except InvalidRequirement:
        return ""


def _name_of(local: Local) -> str:
    """The name of the package in a file or folder; "" if it is unknown."""
    if local.name:
        return canonicalize_name(local.name.partition("[")[0].strip())
    with suppress(InvalidWheelFilename, InvalidName):
        return parse_wheel_filename(local.path.name)[0]
    with suppress(InvalidSdistFilename, InvalidName):
        return parse_sdist_filename(local.path.name)[0]
    with suppress(OSError, ValueError, KeyError, TypeError):
        return canonicalize_name(tomllib.loads((local.path / "pyproject.toml").read_text())["project"]["name"])
    return ""
