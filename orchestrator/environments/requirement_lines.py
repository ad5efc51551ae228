"""Lines of requirements files that are neither path nor reference: those that are no requirements are refused with a way that
works, and beside required hashes those of constraints that pip would not look at are left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from orchestrator.errors import InvalidConfig
from orchestrator.spec.redaction import redacted
from orchestrator.spec.requirements import VARIABLE, logical_lines, split_option
from orchestrator.spec.run import RequirementFile

_TAKEN = frozenset({"--no-binary", "--only-binary"})
_WITHOUT_EFFECT = frozenset({"--prefer-binary", "--use-feature"})
"""Options that pip takes in a file; they change how it works, not what is installed."""
_OWN_OPTIONS = re.compile(r"\s--(hash|config-settings?|global-option|install-option|build-option)[\s=].*", re.DOTALL)
_CONDA = re.compile(r"([\w.-]+)=([\w.*+!]+)(=[\w.]+)?\Z")
_LISTED = re.compile(r"([A-Za-z][\w.-]*)\s+v?(\d[\w.+!]*)\Z")
_LOOSE = (
    (re.compile(r"([<>!~]=?\s*\d[\w.]*?)\.\*"), r"\1"),  # >=1.0.* of old files, which uv takes
    (re.compile(r",\s*(?=;|\Z)"), ""),
)
_REPOSITORY = re.compile(r"git\+file://(/[^\s@#;]*)")
_HOW = "Write it as NAME, NAME==VERSION, NAME @ URL, or the path of a wheel."


def check_line(text: str) -> bool:
    """Check a line of a file. Returns whether it has an effect.

    Raises:
        InvalidConfig: uv cannot take it; with the reason and a way that works.
    """
    if text.startswith("-"):
        option = split_option(text)[0]
        if option not in _TAKEN | _WITHOUT_EFFECT:
            raise InvalidConfig(
                f"Option {option} has no place in a requirements file.", "Remove the line; pip refuses it, too."
            )
        return option in _TAKEN
    plain = _OWN_OPTIONS.sub("", text)
    if requirement_of(plain) is None and not VARIABLE.search(plain) and "://" not in plain:
        raise InvalidConfig(f"{redacted(text)!r} is not a pip requirement.", _instead(plain))
    return True


def requirement_of(text: str) -> Requirement | None:
    """The requirement in a line, read as loosely as uv does; None if there is none."""
    plain = _OWN_OPTIONS.sub("", text)
    loose = plain
    for pattern, instead in _LOOSE:
        loose = pattern.sub(instead, loose)
    for written in (plain, loose):
        try:
            return Requirement(written)
        except InvalidRequirement:
            continue
    return None


def _instead(text: str) -> str:
    if found := _CONDA.match(text) or _LISTED.match(text):
        return f"Write it as {found[1]}=={found[2]}. A whole file in pip's form is written by: pip list --format=freeze"
    return _HOW


def needed(constraints: Iterable[str], pinned: Mapping[str, Requirement], where: str) -> Iterator[str]:
    """Yield the constraints that matter where hashes are required: none, as all versions are pinned.

    uv refuses each constraint that is no exact version there; pip looks only at those of packages that it installs.

    Args:
        constraints: lines of a constraints file.
        pinned: the requirements, by the name of the package.
        where: the file, for messages.

    Raises:
        InvalidConfig: a constraint excludes the pinned version.
    """
    for text in constraints:
        limit = requirement_of(text)
        if limit is None:
            yield text
            continue
        pin = pinned.get(canonicalize_name(limit.name))
        version = exact_version(pin) if pin else None
        if version and not limit.specifier.contains(version, prereleases=True):
            raise InvalidConfig(
                f"{where} allows only {limit}, but {pin} is asked for by its hash.", "Change one of the two files."
            )


def refuse_repositories(lines: Iterable[str], files: Iterable[RequirementFile]) -> None:
    """Refuse repositories of this machine for a build in a container, which does not see them.

    Raises:
        InvalidConfig: names the file, the line, and the folder that can be given instead.
    """
    found = [("", line) for line in lines]
    found += [(f"{file.name}, line {line.number}: ", line.text) for file in files for line in logical_lines(file.text)]
    for where, text in found:
        if repository := _REPOSITORY.search(text):
            words = f"{where}A build in a container does not see the repository {repository[1]}."
            raise InvalidConfig(words, f"Give the folder itself, which is copied: {repository[1]}")


def exact_version(requirement: Requirement) -> str | None:
    """The version that a requirement pins; None if it pins none."""
    found = [item.version for item in requirement.specifier if item.operator in ("==", "===")]
    return found[0] if len(found) == 1 and "*" not in found[0] else None
