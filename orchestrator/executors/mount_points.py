"""Mount points in the work dir, made before a run starts, so that no link of the code can lead them elsewhere.

Each refusal has the same form: the path, why nothing can be mounted there, and another path.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.errors import DiskFull, InvalidConfig, MountFailed, is_disk_full
from orchestrator.executors.base import Bind, Launch
from orchestrator.spec.mounts import normal_path


def make_mount_points(launch: Launch, make: Callable[[Path, Path], None]) -> None:
    """Make the mount points of a launch. Absolute mounts need none in the work dir.

    Args:
        make: called with source and target; the folders above the target exist.

    Raises:
        MountFailed, DiskFull: when a mount cannot be placed.
    """
    places: dict[Path, str] = {}
    for bind in launch.binds:
        if not bind.source.exists():
            raise MountFailed(f"{bind.source} does not exist any more")
        if not bind.target.startswith("/"):
            target = inside(launch, bind)
            _check(launch, bind, target, places)
            places[_place(target)] = bind.target
    for bind in launch.binds:
        if bind.target.startswith("/"):
            continue
        target = launch.code / bind.target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            make(bind.source, target)
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(f"{bind.target!r} cannot be placed: {error.strerror}") from error
            raise cannot_be_placed(launch, bind, str(error.strerror)) from error


def make_placeholder(source: Path, target: Path) -> None:
    """Make an empty file or folder that a bind mount will cover."""
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()


def inside(launch: Launch, bind: Bind) -> Path:
    """Return the path of a mount's target below the code's root.

    Raises:
        MountFailed: when a link of the code on the way leads elsewhere.
    """
    path = launch.code / bind.target
    if not path.parent.resolve().is_relative_to(launch.code.resolve()):
        raise cannot_be_placed(launch, bind, "it leads out of the work dir through a link of the code")
    if path.is_symlink():
        raise cannot_be_placed(launch, bind, "it is a link in the code")
    return path


def _place(target: Path) -> Path:
    return target.parent.resolve() / target.name


def _check(launch: Launch, bind: Bind, target: Path, places: dict[Path, str]) -> None:
    """Check that the target is apart from other mounts, and of the same kind as the source, as a bind mount needs."""
    place = _place(target)
    for other, path in places.items():
        if place.is_relative_to(other) or other.is_relative_to(place):
            raise cannot_be_placed(launch, bind, f"a link of the code leads it to the mount at {path!r}")
    for above in reversed(target.parents):
        if above.exists() and not above.is_dir():
            shown = above.relative_to(launch.code)
            raise cannot_be_placed(launch, bind, f"{str(shown)!r} is a file of the code, and so cannot hold it")
    if target.exists() and target.is_dir() != bind.source.is_dir():
        here, mounted = ("folder", "file") if target.is_dir() else ("file", "folder")
        raise cannot_be_placed(launch, bind, f"it is a {here} of the code, and a {mounted} is mounted")


def cannot_be_placed(launch: Launch, bind: Bind, why: str) -> MountFailed:
    """Return the error for a mount whose target cannot be one. It names another path."""
    folder = "/mnt"
    if not bind.target.startswith("/"):
        folders = itertools.chain(["in"], (f"in-{count}" for count in itertools.count(2)))
        folder = next(name for name in folders if not os.path.lexists(launch.code / launch.subdir / name))
    cure = f"Mount it elsewhere, for example: -m {bind.resource}:{folder}/{bind.source.name}"
    return MountFailed(f"{bind.target!r} cannot be placed: {why}.", cure)


def check_python(launch: Launch) -> None:
    """Check that no absolute mount hides the Python of the image, which supervises the run.

    Raises:
        MountFailed: one does.
    """
    for bind in launch.binds:
        if launch.base.python == bind.target or launch.base.python.startswith(f"{bind.target}/"):
            raise cannot_be_placed(launch, bind, f"it would hide the Python of the image, {launch.base.python}")


def mount_refused(launch: Launch, words: str) -> MountFailed | None:
    """Return the error for a mount that the engine has refused, when these words of it are about one."""
    for bind in launch.binds:
        if bind.target.startswith("/") and str(bind.source.resolve()) in words:
            kind = "folder" if bind.source.is_dir() else "file"
            return cannot_be_placed(launch, bind, f"what the image has there, or on the way to it, is not a {kind}")
    return None


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
    other = f"Choose another path, for example /mnt{place}."
    for needed in _SYSTEM:
        if needed == place or needed.startswith(f"{place}/"):
            raise InvalidConfig(f"Nothing can be mounted over {path!r}: it would hide every command.", other)
    for needed in kept:
        if place == needed or place.startswith(f"{needed}/") or needed.startswith(f"{place}/"):
            cure = "Give a path relative to the working directory." if needed == code else other
            raise InvalidConfig(f"Nothing can be mounted at {path!r}: the container needs {needed} itself.", cure)
