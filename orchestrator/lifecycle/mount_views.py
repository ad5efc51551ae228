"""What the mounts of a run show: the resource itself, or a view of it.

A folder whose links lead out of it, to other files of the same run or upload, is mounted with these files in their place
(see `content/followed.py`). The view is a folder of hard links in the run's work dir, outside the part that the run may
write to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.content.followed import Member, followed
from orchestrator.content.manifest import LINK, actual
from orchestrator.errors import DiskFull, MountFailed, is_disk_full
from orchestrator.executors.base import Bind
from orchestrator.home import Home
from orchestrator.spec.mounts import path_in_code
from orchestrator.spec.run import RunSpec
from orchestrator.store import Store

_NAMED = 3


def binds(home: Home, store: Store, number: int, spec: RunSpec) -> Iterator[Bind]:
    """Yield the mounts of a run; makes the views, and tells the run of links that lead to nothing.

    Raises:
        MountFailed, DiskFull: when a view cannot be made.
    """
    subdir = spec.code.subdir if spec.code else ""
    for place, mount in enumerate(spec.mounts):
        source = home.root / actual(mount.resource)
        try:
            if _has_links(home, store, mount.resource) and source.is_dir():
                view = home.work_dir(number) / "mounts" / str(place)
                source, lost = _shown(source, home.whole(source), view)
                if lost:
                    store.notice(number, f"Links of {mount.resource} that lead to nothing in it: {_names(lost)}")
        except OSError as error:
            kind = DiskFull if is_disk_full(error) else MountFailed
            raise kind(f"{mount.resource}: {error.strerror}") from error
        yield Bind(source, path_in_code(subdir, mount.path), mount.resource)


def _has_links(home: Home, store: Store, resource: str) -> bool:
    """Whether the run or upload has any link: a mount of one without links takes the same time whatever its size."""
    kind, name, *_ = resource.split("/")
    if kind == "runs":
        return store.has_links(int(name))
    with contextlib.suppress(FileNotFoundError):
        return f'"{LINK}"'.encode() in home.upload_manifest(name).read_bytes()
    return False


def _shown(folder: Path, bound: Path, view: Path) -> tuple[Path, Sequence[str]]:
    """Return the folder, or its view if a link leads out of it; and links that lead to nothing."""
    real = os.path.realpath(folder)
    found = list(followed(folder, bound))
    lost = [item.path for item in found if item.is_lost]
    if all(item.place == f"{real}/{item.path}" for item in found):
        return folder, lost
    _make(view, found)
    return view, lost


def _make(view: Path, found: Sequence[Member]) -> None:
    view.mkdir(parents=True)
    folders = [view]
    for item in found:  # a folder comes before what is in it
        target = view / item.path
        if item.link:
            target.symlink_to(item.link)
        elif stat.S_ISDIR(item.status.st_mode):
            target.mkdir()
            folders.append(target)
        elif stat.S_ISREG(item.status.st_mode):
            try:
                os.link(item.place, target)
            except OSError:  # another disk, or too many names
                shutil.copy2(item.place, target)  # the time, too: tools take it for the content
    for folder in reversed(folders):
        folder.chmod(0o555)


def _names(paths: Sequence[str]) -> str:
    more = len(paths) - _NAMED
    return ", ".join(paths[:_NAMED]) + (f" and {more} more" if more > 0 else "")
