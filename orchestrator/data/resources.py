"""Resources: files under `runs/` and `uploads/`, named by path. A resource cannot name a file outside the home."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.content.followed import Member, followed
from orchestrator.content.manifest import actual, printable
from orchestrator.errors import Conflict, NotFound, SpellError
from orchestrator.home import Home
from orchestrator.records.files import FileRecord
from orchestrator.records.links import LinkRecord
from orchestrator.spec.mounts import relative_parts
from orchestrator.states import ACTIVE, KEEPS_OUTPUTS, State, spoken
from orchestrator.store import Store
from orchestrator.store.gc import removed_error

Find = Callable[[str], int]
"""Returns the number of the run that a reference means; raises NotFound."""


class Resources:
    """Finds, lists and reads resources of one home."""

    def __init__(self, home: Home, store: Store) -> None:
        self._home, self._store = home, store

    def canonical(self, resource: str, find: Find) -> str:
        """Return the resource with its run by number: `runs/latest/x`, `runs/jokes/x`, `alias/x` → `runs/7/x`.

        Args:
            find: returns the number of the run that the path names.

        Raises:
            InvalidConfig: when it is not a clean relative path.
            NotFound: when the run does not exist.
            Conflict: when an alias leads to an archived run.
        """
        parts = relative_parts(resource, "The resource")
        if parts[0] not in ("runs", "uploads"):
            parts = (*self._linked(parts[0], resource, find).split("/"), *parts[1:])
        if parts[0] == "runs" and len(parts) > 1:
            return "/".join(("runs", str(find(parts[1])), *parts[2:]))
        return "/".join(parts)

    def _linked(self, alias: str, resource: str, find: Find) -> str:
        """Return the target of an alias."""
        try:
            target = self._store.links.get(alias).resource
        except NotFound:
            cure = "A resource is runs/NUMBER/…, uploads/NAME/… or an alias; see: spell link"
            with contextlib.suppress(SpellError):
                find(alias)
                cure += f"\nDid you mean runs/{resource}?"
            raise NotFound(f"{resource!r} is not a valid resource.", cure) from None
        self.refuse_archived(target, f"{alias} → {target}: ")
        return target

    def refuse_archived(self, canonical: str, where: str = "") -> None:
        """Refuse a resource of an archived run.

        Raises:
            Conflict: when its run is archived; the message begins with `where`.
        """
        kind, _, rest = canonical.partition("/")
        number = rest.partition("/")[0]
        if kind == "runs" and number.isdecimal() and self._store.archive.has(int(number)):
            raise Conflict(f"{where}run {number} is archived.", f"Bring it back: spell unarchive {number}")

    def mountable(self, resource: str, find: Find) -> str:
        """Return the canonical form of a resource that can be mounted now; see `canonical`.

        A run's outputs can be mounted when it has ended in a state that keeps them: complete, failed, stopped or
        interrupted.

        Raises:
            NotFound, Conflict: when it cannot be mounted.
        """
        try:
            canonical = self.canonical(resource, find)
        except NotFound as error:
            if "/" in resource:
                raise
            raise NotFound(f"Cannot mount resource {resource!r}: not a valid resource.", error.cure) from None
        parts = canonical.split("/")
        if parts[0] == "runs":
            self.refuse_archived(canonical, f"Cannot mount resource {resource!r}: ")
            run = self._store.claimed(int(parts[1]))
            if run.state not in KEEPS_OUTPUTS:
                what = "kept no outputs" if run.state in (State.KILLED, State.BUILD_FAILED, State.MOUNT_FAILED) else ""
                raise Conflict(
                    f"Cannot mount resource {resource!r}: run {run.number} {what or f'is still {spoken(run.state)}'}.",
                    "" if what else f"Wait for it: spell wait {run.number}",
                )
            if self._store.gc.is_removed(run.number):
                raise removed_error(run.number)
        try:
            self.path(canonical)
        except NotFound as error:
            is_whole = len(parts) < 3 or not self._home.root.joinpath(*parts[:2]).exists()
            hint = f"See what is there: spell ls {parts[0] if is_whole else '/'.join(parts[:2])}"
            what, alias = "not a valid resource", resource.partition("/")[0]
            if alias not in ("runs", "uploads"):
                what = f"it leads to {canonical!r}, which does not exist"
                hint = f"Remove it: spell unlink {alias}" if is_whole else hint
            raise NotFound(f"Cannot mount resource {resource!r}: {what}.", hint) from error
        return canonical

    def path(self, canonical: str) -> Path:
        """Return the path of a canonical resource.

        Raises:
            NotFound: when it does not exist, or a link leads out of its run or upload.
            Conflict: when its run has not ended yet.
        """
        parts = relative_parts(canonical, "The resource")
        root = self._home.root.joinpath(*parts[:2]).resolve()
        path = self._home.root / actual("/".join(parts))
        if not path.exists() or not path.resolve().is_relative_to(root):
            raise self._missing(canonical, parts)
        return path

    def _missing(self, canonical: str, parts: tuple[str, ...]) -> NotFound | Conflict:
        if parts[0] == "runs" and len(parts) > 1 and parts[1].isdecimal():
            run = self._store.claimed(int(parts[1]))
            if run.state in ACTIVE:
                words = f"Run {run.number} is still {spoken(run.state)}; its outputs appear when it has ended."
                return Conflict(words, f"Wait for it: spell wait {run.number}")
            if self._store.gc.is_removed(run.number):
                return removed_error(run.number)
            if run.state not in KEEPS_OUTPUTS:
                return NotFound(
                    f"Run {run.number} kept no outputs ({spoken(run.state)}).", f"See why: spell info {run.number}"
                )
        there = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        return NotFound(f"There is no {canonical!r}.", f"See what is there: spell ls {there}")

    def list(self, resource: str, find: Find) -> list[FileRecord]:
        """Return a folder's entries by name, or the file itself; the runs, uploads and aliases for "". No archived runs.

        See `canonical`.

        Raises:
            NotFound: when it does not exist.
        """
        if resource.strip("/") in ("", "."):
            top = [_file_record(self._home.root / name, name) for name in ("runs", "uploads")]
            return [*top, *map(self._alias, self._store.links.list())]
        path = self.path(self.canonical(resource, find))
        if not path.is_dir():
            return [_file_record(path, path.name)]
        names = os.listdir(path)
        if path == self._home.runs:
            archived = self._store.archive.numbers()
            names = [name for name in names if name.isdecimal() and int(name) not in archived]
        names.sort(key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
        return [_file_record(path / name, name) for name in names]

    def _alias(self, link: LinkRecord) -> FileRecord:
        try:
            found = _file_record(self.path(link.resource), link.alias)
        except (NotFound, Conflict):  # its target was removed
            return FileRecord(link.alias, 0, link.created_at, is_dir=False, link=link.resource)
        return replace(found, link=link.resource)

    def members(self, path: Path) -> Sequence[Member]:
        """List everything below a folder, by path. Links to other files of the same run or upload are these files."""
        return sorted(followed(path, self._home.whole(path)))


def _file_record(path: Path, name: str) -> FileRecord:
    status = path.lstat()
    link = printable(os.readlink(path)) if path.is_symlink() else ""
    if link:
        with contextlib.suppress(OSError):  # it leads to nothing
            status = path.stat()
    return FileRecord(printable(name), status.st_size, status.st_mtime, stat.S_ISDIR(status.st_mode), link)
