"""Mount points in the work dir, made before a run starts, so that no link of the code can lead them elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.errors import DiskFull, InvalidConfig, MountFailed, is_disk_full
from orchestrator.executors.base import Launch
from orchestrator.spec.mounts import normal_path


def make_mount_points(launch: Launch, make: Callable[[Path, Path], None]) -> None:
    """Make the mount points of a launch. Absolute mounts need none in the work dir.

    Args:
        make: called with source and target; the folders above the target exist.

    Raises:
        MountFailed, DiskFull: when a mount cannot be placed.
    """
    for bind in launch.binds:
        if not bind.source.exists():
            raise MountFailed(f"{bind.source} does not exist any more")
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
    """Make an empty file or folder that a bind mount will cover."""
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()


def inside(code: Path, target: str) -> Path:
    """Return the path of `target` below the code's root.

    Raises:
        MountFailed: when a link of the code on the way leads elsewhere.
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
        kept: the paths that the container needs itself.
        code: the one of them at which the work dir is mounted.

    Raises:
        InvalidConfig: the path is one of them, inside one, or above one; or it covers what every system needs.
    """
    place = normal_path(path)
    for needed in _SYSTEM:
        if needed == place or needed.startswith(f"{place}/"):
            raise InvalidConfig(
                f"Nothing can be mounted over {path!r}: it would hide every command.", "Choose another path."
            )
    for needed in kept:
        if place == needed or place.startswith(f"{needed}/") or needed.startswith(f"{place}/"):
            cure = "Give a path relative to the working directory." if needed == code else "Choose another path."
            raise InvalidConfig(f"Nothing can be mounted at {path!r}: the container needs {needed} itself.", cure)
