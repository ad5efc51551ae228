"""The identity of a home: whether the files of this home are those that a server served last, or a copy of them.

A claim in a copy names a process or container of the original, so a copy must not follow it. `store/home.json` notes the
folder `store` as the file system knows it: inode and file handle stay when the home is moved on its disk, and every copy and
restored backup has others. A copy gets a new key.

Source of the handle: name_to_handle_at(2). It holds the generation of the inode, so a folder that was removed and restored
differs, even when it got the same inode number again.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import DiskFull, is_disk_full
from orchestrator.home import Home, set_aside

_log = logging.getLogger(__name__)
_AT_FDCWD = -100
_MAX_HANDLE_BYTES = 128  # MAX_HANDLE_SZ


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server knows about its home when it starts.

    Attributes:
        key: names the home where its path would not do, as it may be moved: on containers and images.
        is_copy: whether the home was copied since a server noted its identity.
        moved_from: where it was then, if it was moved since; "" if it was not.
    """

    key: str
    is_copy: bool
    moved_from: str = field(default="", compare=False)


def identify(home: Home) -> Identity:
    """Return the identity of a home. To be asked before the store is opened, which shows whether the home is new."""
    noted = _noted(home)
    if noted and not _is_copy(home, noted):
        before = Path(noted["path"])
        is_here = before == home.root or _is_same(Home(before), home)  # named through a link
        return Identity(str(noted["key"]), is_copy=False, moved_from="" if is_here else str(before))
    if not noted and home.database.exists():  # of a version that named its things by the path
        return Identity(str(home.root), is_copy=False)
    return Identity(os.urandom(16).hex(), is_copy=bool(noted))


def note(home: Home, identity: Identity) -> None:
    """Note the identity for the next server: of a copy when its store knows that, of another home before its store is made.

    Raises:
        DiskFull: of a copy, which would be taken for one again, and of a new home, whose key would be forgotten.
    """
    words = {"key": identity.key, "path": str(home.root), **_here(home)}
    if _noted(home) == words:
        return
    beside = home.identity.with_suffix(".tmp")
    try:
        set_aside(home.identity)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(words, file)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(home.identity)
    except OSError as error:
        if is_disk_full(error) and (identity.is_copy or not home.database.exists()):
            raise DiskFull(f"The disk of {home.store} is full.", "Free some space.") from error
        _log.warning("the identity of the home is not noted: %s", error)


def _noted(home: Home) -> dict[str, Any]:
    """Return what the last server noted; nothing where there was none, or the note cannot be read."""
    try:
        words = json.loads(home.identity.read_bytes())
    except (OSError, ValueError):
        return {}
    return words if isinstance(words, dict) and {"key", "path", *_here(home)} <= words.keys() else {}


def _is_copy(home: Home, noted: dict[str, Any]) -> bool:
    here = _here(home)
    if here["inode"] != noted["inode"]:
        return True
    if here["handle"] and noted["handle"] and here["handle"] != noted["handle"]:
        return True
    # A copy of the whole disk shows itself beside its original.
    before = Home(Path(noted["path"]))
    return before.root != home.root and _noted(before).get("key") == noted["key"] and not _is_same(before, home)


def _is_same(one: Home, other: Home) -> bool:
    try:
        return one.store.samefile(other.store)
    except OSError:
        return False


def _here(home: Home) -> dict[str, Any]:
    """Return how the file system knows the folder `store`."""
    return {"inode": home.store.stat().st_ino, "handle": _handle(home.store)}


class _FileHandle(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("bytes", ctypes.c_ubyte * _MAX_HANDLE_BYTES))


def _handle(path: Path) -> str:
    """Return the file handle of a folder; "" where system or file system has none."""
    ask = getattr(ctypes.CDLL(None), "name_to_handle_at", None)
    handle, mount = _FileHandle(size=_MAX_HANDLE_BYTES), ctypes.c_int()
    if ask is None or ask(_AT_FDCWD, os.fsencode(path.resolve()), ctypes.byref(handle), ctypes.byref(mount), 0):
        return ""
    return f"{handle.type}:{bytes(handle.bytes[: handle.size]).hex()}"
