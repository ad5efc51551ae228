"""Mount points in the work dir: made before a run starts, where no link of the code can lead them elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.errors import DiskFull, InvalidConfig, MountFailed, is_disk_full
from orchestrator.executors.base import Launch


def make_mount_points(launch: Launch, make: Callable[[Path, Path], None]) -> None:
    """Make what the mounts of a launch are placed on. Absolute mounts have nothing to do with the work dir.

    Args:
        make: called with source and target; the folders above the target are there.

    Raises:
        MountFailed, DiskFull: when a mount cannot be placed.
    """
    for bind in launch.binds:
        if not bind.source.exists():
            raise MountFailed(f"{bind.source} is gone")
        if bind.target.startswith("/"):
            continue
        target = inside(launch.code, bind.target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            make(bind.source, target)
        except OSError as error:
            kind = DiskFull if is_disk_full(error) else MountFailed
            raise kind(f"{bind.target!r} cannot be placed: {error.strerror}") from error


def make_placeholder(source: Path, target: Path) -> None:
    """An empty file or folder for a bind mount to cover."""
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()


def inside(code: Path, target: str) -> Path:
    """`target` below the code's root, when no link of the code leads elsewhere on the way.

    Raises:
        MountFailed: otherwise.
    """
    path = code / target
    if not path.parent.resolve().is_relative_to(code.resolve()):
        raise MountFailed(f"{target!r} leads out of the work dir through a link of the code")
    if path.is_symlink():
        raise MountFailed(f"{target!r} is a link in the code")
    return path


_SYSTEM = ("/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr/bin", "/usr/lib", "/usr/local/bin", "/usr/local/lib")


def check_absolute(path: str, kept: Iterable[str], code: str) -> None:
    """Check the place of an absolute mount in a container.

    Args:
        kept: the places that the container needs itself.
        code: the one of them that the work dir is mounted at.

    Raises:
        InvalidConfig: it is one of them, in one, or above one; or it covers what every system needs.
    """
    place = os.path.normpath("/" + path.lstrip("/"))
    for needed in _SYSTEM:
        if needed == place or needed.startswith(f"{place}/"):
            raise InvalidConfig(
                f"Nothing can be mounted over {path!r}: no command would be left.", "Choose another place."
            )
    for needed in kept:
        if place == needed or place.startswith(f"{needed}/") or needed.startswith(f"{place}/"):
            cure = "Give a path relative to the working directory." if needed == code else "Choose another place."
            raise InvalidConfig(f"Nothing can be mounted at {path!r}: the container needs {needed} itself.", cure)
