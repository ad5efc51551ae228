"""What a run leaves behind: its new or modified files become `runs/N/…` by rename, and are sealed.

Unchanged code, mounted inputs and ignored files are not outputs. Every file of the code was unpacked with one known
modification time; a file that still has it and its size is unchanged, any other one is compared by content.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from orchestrator.errors import DiskFull, SaveFailed
from orchestrator.manifest import EXECUTABLE, FILE, LINK, Entry, Manifest, actual, printable
from orchestrator.records.files import ArtifactRecord

__all__ = [
    "ALWAYS_IGNORED",
    "Workspace",
    "actual",
    "below",
    "check_patterns",
    "printable",
    "remove_tree",
    "save",
    "sha256",
    "sizes_below",
]

ALWAYS_IGNORED = ("__pycache__/", ".git/")
_CHUNK_BYTES = 1 << 20
_NOT_KEPT = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Workspace:
    """A run's work dir, and what was in it before the run.

    Attributes:
        code: the root.
        manifest: the code that was unpacked there.
        mtime_ns: the modification time that every file of the code got.
        mounted: relative paths of mount points.
        ignore: gitignore patterns of what is not kept.
    """

    code: Path
    manifest: Manifest
    mtime_ns: int
    mounted: frozenset[str]
    ignore: tuple[str, ...]


@dataclass(slots=True)
class _Found:
    files: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def save(run: int, workspace: Workspace, staging: Path, target: Path) -> list[ArtifactRecord]:
    """Move the outputs of a run to `target`, whole: it appears with all of them, or not yet at all. May be done again.

    Args:
        run: the run's number.
        workspace: where it worked.
        staging: a folder on the disk of `target`, where the outputs are gathered first. Where that is another disk
            than the work dir's, each file is copied to `STAGING.copying`, and then renamed.
        target: `runs/N`.

    Raises:
        SaveFailed, DiskFull: when a file cannot be moved.
    """
    try:
        found = _scan(workspace)
        if target.exists():  # of a save that was interrupted: the links that are still here were not kept
            found.notes += [(path, _leads_out(workspace, path)) for path in found.links]
        else:
            _gather(workspace, found, staging)
            os.rename(staging, target)
        kept = list(_seal(run, target))
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else SaveFailed
        raise kind(f"{error.filename}: {error.strerror}") from error
    return kept + [ArtifactRecord(run, printable(path), 0, "", None, note) for path, note in found.notes]


def _gather(workspace: Workspace, found: _Found, staging: Path) -> None:
    staging.mkdir(exist_ok=True)
    staged = {path for path, _ in below(staging)}  # of a save that was interrupted
    kept = staged | set(found.files)
    for path in _add_links(workspace.code, found.links, kept):
        found.notes.append((path, _leads_out(workspace, path)))
    moved = kept - staged
    for folder in sorted(_folders(moved)):  # a parent sorts before its children
        with contextlib.suppress(FileExistsError):
            os.mkdir(staging / folder)
    for path in sorted(moved):
        _move(workspace.code / path, staging / path, staging.with_name(f"{staging.name}.copying"))


def _leads_out(workspace: Workspace, path: str) -> str:
    return f"a link to what is not among the outputs: {printable(os.readlink(workspace.code / path))}"


def _scan(workspace: Workspace) -> _Found:
    before = {entry.path: entry for entry in workspace.manifest.entries}
    ignored = GitIgnoreSpec.from_lines([*ALWAYS_IGNORED, *workspace.ignore])
    found = _Found()
    for path, status in _walk(workspace.code, workspace.mounted, ignored, found.notes):
        entry = before.get(path)
        if entry and _is_unchanged(workspace, path, status, entry):
            continue
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            found.files.append(path)
        elif kind == stat.S_IFLNK:
            found.links.append(path)
        else:
            found.notes.append((path, f"{_NOT_KEPT.get(kind, 'not a file')}, not a file"))
    return found


def _walk(
    root: Path, mounted: frozenset[str], ignored: GitIgnoreSpec, notes: list[tuple[str, str]]
) -> Iterator[tuple[str, os.stat_result]]:
    todo = [""]
    while todo:  # no recursion: a run may nest folders as deep as it likes
        below = todo.pop()
        try:
            with contextlib.suppress(OSError):
                os.chmod(root / below, 0o755)  # the command may have taken our own right to look inside
            entries = list(os.scandir(root / below))
        except OSError as error:
            notes.append((below, f"cannot be read: {error.strerror}"))
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            is_dir = entry.is_dir(follow_symlinks=False)
            if ignored.match_file(path + "/" if is_dir else path):
                continue
            if path in mounted and not is_dir and (entry.is_symlink() or not entry.stat().st_size):
                continue  # the mount point; anything else in its place was put there by the run
            if is_dir:
                todo.append(path)
            else:
                yield path, entry.stat(follow_symlinks=False)


def _is_unchanged(workspace: Workspace, path: str, status: os.stat_result, entry: Entry) -> bool:
    if stat.S_ISLNK(status.st_mode):
        target = os.fsencode(os.readlink(workspace.code / path))
        return entry.mode == LINK and hashlib.sha256(target).hexdigest() == entry.digest
    if not stat.S_ISREG(status.st_mode) or entry.mode == LINK or status.st_size != entry.size:
        return False
    if bool(status.st_mode & stat.S_IXUSR) != (entry.mode == EXECUTABLE):
        return False
    return status.st_mtime_ns == workspace.mtime_ns or sha256(workspace.code / path) == entry.digest


def _add_links(root: Path, links: list[str], kept: set[str]) -> list[str]:
    """Add to `kept` the links that lead to what is kept, by way of other links too. Returns the others."""
    folders = _folders(kept)
    targets = {path: _leads_to(root, path) for path in links}
    while inside := [path for path, target in targets.items() if target in kept or target in folders]:
        kept.update(inside)
        folders |= _folders(inside)
        for path in inside:
            del targets[path]
    return list(targets)


def _leads_to(root: Path, path: str) -> str | None:
    """Where a link below `root` leads, relative to `root`; None when that is outside."""
    target = os.readlink(root / path)
    if target.startswith("/"):
        return None
    place = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if place == ".." or place.startswith("../"):
        return None
    # `a/../b` is another place where `a` is a link: what the kernel finds must be inside, too
    leads_to = os.path.realpath(root / path)
    return place if leads_to.startswith(f"{os.path.realpath(root)}/") else None


def _folders(paths: Iterable[str]) -> set[str]:
    return {path[:position] for path in paths for position, char in enumerate(path) if char == "/"}


def _move(source: Path, target: Path, beside: Path) -> None:
    status = source.lstat()
    # Another name of a file may lie anywhere; the artifact must not change through it.
    if not (stat.S_ISREG(status.st_mode) and status.st_nlink > 1):
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return
    beside.unlink(missing_ok=True)  # of a save that was interrupted
    shutil.copy2(source, beside, follow_symlinks=False)
    os.rename(beside, target)


def _seal(run: int, target: Path) -> Iterator[ArtifactRecord]:
    """Take the write bits off everything below `target`, and list the files."""
    folders = [target]
    for path, status in below(target):
        place = target / path
        if stat.S_ISDIR(status.st_mode):
            folders.append(place)
            continue
        mode = LINK
        if stat.S_ISREG(status.st_mode):
            executable = bool(status.st_mode & stat.S_IXUSR)
            place.chmod(0o555 if executable else 0o444)
            mode = EXECUTABLE if executable else FILE
        yield ArtifactRecord(run, printable(path), status.st_size, mode, None, "")
    for folder in reversed(folders):
        os.chmod(folder, 0o555)


def below(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below a folder, by relative path; without recursion, as a run may nest folders as deep as it likes."""
    todo = [""]
    while todo:
        below = todo.pop()
        for entry in os.scandir(root / below):
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                todo.append(path)
            yield path, entry.stat(follow_symlinks=False)


def sizes_below(root: Path) -> Iterator[os.stat_result]:
    """What is known of every file below a folder, for whoever adds up sizes: what vanishes meanwhile is left out."""
    todo = [str(root)]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        yield entry.stat(follow_symlinks=False)


def sha256(path: Path, cancelled: Callable[[], bool] = lambda: False, *, durably: bool = False) -> str | None:
    """The SHA-256 of a file's bytes; of a link, of the text it holds. None when `cancelled` said yes on the way.

    Args:
        durably: also see to it that the file is on the disk, and not only in the kernel's memory.
    """
    if path.is_symlink():
        return hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()
    hashing = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hashing.update(chunk)
            if cancelled():
                return None
        if durably:
            os.fsync(file.fileno())
    return hashing.hexdigest()


def remove_tree(path: Path) -> None:
    """Remove a folder that a run left, whatever modes and depth it has. No error when it is not there.

    Raises:
        SaveFailed: when something of it cannot be removed.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        with contextlib.suppress(OSError):
            _open_folders(path)
        # find and rm walk with descriptors: neither modes nor depth nor long paths stop them
        if _rm(path):
            words = ["find", str(path), "-type", "d", "-execdir", "chmod", "u+rwx", "{}", ";"]  # before it looks inside
            subprocess.run(words, check=False, capture_output=True, env={"PATH": "/usr/bin:/bin"})
            if complaint := _rm(path):
                raise SaveFailed(f"{path} cannot be removed: {complaint}") from None


def _open_folders(root: Path) -> None:
    """Let us remove what lies in each folder. The modes of files stay: they may be those of another run's, too."""
    todo = [] if root.is_symlink() else [str(root)]
    while todo:
        folder = todo.pop()
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            todo += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def _rm(path: Path) -> str:
    """Remove all of it. Returns why that failed, or ""."""
    done = subprocess.run(["rm", "-rf", "--", str(path)], check=False, capture_output=True, text=True)
    return (done.stderr.strip() or "no reason was given") if done.returncode else ""


def check_patterns(patterns: Sequence[str]) -> None:
    """Raise ValueError when one of the gitignore patterns cannot be read."""
    GitIgnoreSpec.from_lines(patterns)
