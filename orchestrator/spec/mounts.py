"""Mounts of a run, `RESOURCE[:PATH]`, and the one normal form of the paths that they appear at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from orchestrator.errors import InvalidConfig, NotFound
from orchestrator.spec.type_checks import check_types

_ELSEWHERE = "Give a path below the working directory, for example: RESOURCE:in/data"


def _reject(message: str, cure: str = "") -> NoReturn:
    raise InvalidConfig(message, cure)


def relative_parts(path: str, what: str, cure: str = "") -> tuple[str, ...]:
    """The parts of a relative path.

    Args:
        what: the subject of messages.
        cure: what the person should do instead.

    Raises:
        InvalidConfig: `path` is absolute, empty or has a `..`.
    """
    if "\0" in path or "\n" in path:
        _reject(f"{what} {path!r} contains a character that paths cannot have.")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if path.startswith("/"):
        _reject(f"{what} {path!r} must be a relative path.", cure)
    if not parts:
        _reject(f"{what} {path!r} must name a file or folder.", cure)
    if ".." in parts:
        _reject(f"{what} {path!r} must not contain '..'.", cure)
    return parts


@dataclass(frozen=True, slots=True)
class Mount:
    """A resource to be mounted read-only.

    Attributes:
        resource: `runs/2/data.txt`, `uploads/cifar`, `ALIAS/checkpoint`, …; always inside the home.
        path: where it appears: relative to the caller's directory, or absolute (for executors that can).
    """

    resource: str
    path: str

    def __post_init__(self) -> None:
        check_types(self)
        if self.resource.startswith("/"):
            raise InvalidConfig(
                f"Cannot mount {self.resource!r}: it is not a resource.",
                "A resource is runs/NUMBER/…, uploads/NAME/… or an alias. To mount a file of yours: spell upload PATH",
            )
        parts = relative_parts(self.resource, "The mounted resource")
        if len(parts) < 2 and parts[0] in ("runs", "uploads"):  # another word may be an alias
            raise NotFound(
                f"Cannot mount resource {self.resource!r}: not a valid resource.",
                "A resource is runs/NUMBER/PATH or uploads/NAME/PATH.",
            )
        if self.path.startswith("/"):
            if "\0" in self.path or "\n" in self.path:
                _reject(f"The mount path {self.path!r} contains a character that paths cannot have.")
            if ".." in self.path.split("/") or self.path.strip("/") == "":
                _reject(f"The mount path {self.path!r} must lead below '/', without '..'.", _ELSEWHERE)
        else:
            relative_parts(self.path, "The mount path", _ELSEWHERE)


def parse_mount(text: str) -> Mount:
    """Parse `RESOURCE[:PATH]`; without PATH it is mounted at the base name of the resource.

    Raises:
        InvalidConfig, NotFound: `text` is not a mount.
    """
    resource, colon, path = text.partition(":")
    if not resource or ":" in path or (colon and not path):
        _reject(f"Incorrect formatting of mount {text!r}, it must be <resource_path>[:<mount_path>]")
    return Mount(resource, path or resource.rstrip("/").rpartition("/")[2])


def normal_path(path: str) -> str:
    """A path without `.` and superfluous slashes: `./in//x/` is `in/x`, `//mnt/` is `/mnt`."""
    parts = "/".join(part for part in path.split("/") if part not in ("", "."))
    return f"/{parts}" if path.startswith("/") else parts


def path_in_code(subdir: str, path: str) -> str:
    """The normal path of a mount: absolute, or relative to the root of the code.

    Args:
        subdir: the caller's directory, which a relative path starts from.
    """
    return normal_path(path if path.startswith("/") else f"{subdir}/{path}".lstrip("/"))


def check_distinct(mounts: Iterable[Mount]) -> None:
    """Check that no mount is at the path of another, or inside it.

    Raises:
        InvalidConfig: one is.
    """
    seen: list[str] = []
    for mount in mounts:
        path = normal_path(mount.path)
        for other in seen:
            if path == other or path.startswith(other + "/") or other.startswith(path + "/"):
                words = f"Two mounts have the same path, or one is inside the other: {other!r} and {path!r}."
                _reject(words, "Give one of them another path: RESOURCE:PATH.")
        seen.append(path)
