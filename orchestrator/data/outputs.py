"""Saves the outputs of a run: its new or modified files are moved to `runs/N/…` by rename, and sealed.

Unchanged code, mounted inputs, ignored files and folders that say that they are caches are not outputs. All files of the code were
unpacked with one modification time (`content/manifest.py`); a file that still has it, and that nothing has touched since (`cp -p` and `mv`
keep that time, but no inode's), is unchanged. Others are compared by content. A link with an absolute path that leads into the
work dir becomes a relative one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pathspec import GitIgnoreSpec

from orchestrator.content.files import below, sha256
from orchestrator.content.links import found_target, said_target
from orchestrator.content.manifest import EXECUTABLE, LINK, Entry, Manifest, mode_of, printable, special_kind
from orchestrator.errors import DiskFull, SaveFailed, is_disk_full
from orchestrator.records.files import ArtifactRecord

ALWAYS_IGNORED = ("__pycache__/", ".git/")
_CACHE_TAG, _CACHE_SIGNATURE = (
    "CACHEDIR.TAG",
    b"Signature: 8a477f597d28d172789f06886806bc55",
)  # https://bford.info/cachedir
_VENV = "pyvenv.cfg"  # https://docs.python.org/3/library/venv.html
_KINDS = {_VENV: "a virtual environment", _CACHE_TAG: "a cache"}
_BACKEND: Literal["simple"] = "simple"  # the others, taken where they are installed, refuse names that are not UTF-8
_HUGGING_FACE = ("models--", "datasets--", "spaces--")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A run's work dir, and its contents before the run.

    Attributes:
        code: the root of the code.
        manifest: the manifest of the code that was unpacked there.
        mounted: relative paths of mount points.
        ignore: gitignore patterns of files that are not kept.
        seen_at: absolute paths of the root of the code, as the command may have written them into links.
        time_ns: the modification time with which the code was unpacked.
        unpacked_ns: when that had been done, by the clock of its file system; 0 if unknown, so that all is compared by content.
    """

    code: Path
    manifest: Manifest
    mounted: frozenset[str]
    ignore: tuple[str, ...]
    seen_at: tuple[str, ...] = ()
    time_ns: int = 0
    unpacked_ns: int = 0


@dataclass(slots=True)
class _Found:
    files: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def save(run: int, workspace: Workspace, staging: Path, target: Path) -> list[ArtifactRecord]:
    """Move the outputs of a run to `target`, which appears with all of them or not at all. May be repeated.

    Args:
        run: the run's number.
        workspace: its work dir.
        staging: a folder on the disk of `target`, where the outputs are gathered first. If that is another disk
            than the work dir's, each file is copied to `STAGING.copying`, and then renamed.
        target: `runs/N`.

    Raises:
        SaveFailed, DiskFull: when a file cannot be moved.
    """
    try:
        found = _scan(workspace)
        if target.exists():  # by a save that was interrupted: the remaining links were not kept
            found.notes += [(path, _leads_out(workspace, path)) for path in found.links]
        else:
            _gather(workspace, found, staging)
            os.rename(staging, target)
        kept = list(seal(run, target))
    except OSError as error:
        kind = DiskFull if is_disk_full(error) else SaveFailed
        raise kind(f"{error.filename}: {error.strerror}") from error
    return kept + [ArtifactRecord(run, printable(path), 0, "", None, note) for path, note in found.notes]


def _gather(workspace: Workspace, found: _Found, staging: Path) -> None:
    staging.mkdir(exist_ok=True)
    staged = {path for path, _ in below(staging)}  # of a save that was interrupted
    kept = staged | set(found.files)
    for path in found.links:
        _make_relative(workspace, path)
    for path in _add_links(workspace.code, found.links, kept):
        found.notes.append((path, _leads_out(workspace, path)))
    moved = kept - staged
    for folder in sorted(_folders(moved)):  # a parent sorts before its children
        with contextlib.suppress(FileExistsError):
            os.mkdir(staging / folder)
    for path in sorted(moved):
        _move(workspace.code / path, staging / path, staging.with_name(f"{staging.name}.copying"))


def _leads_out(workspace: Workspace, path: str) -> str:
    return f"a link to a file that is not an output: {printable(os.readlink(workspace.code / path))}"


def _make_relative(workspace: Workspace, path: str) -> None:
    """Replace a link to an absolute path in the work dir, which is removed with the run, by a relative one."""
    place = workspace.code / path
    text = os.readlink(place)
    for root in workspace.seen_at:
        if text == root or text.startswith(f"{root}/"):
            inside = text.removeprefix(root).strip("/")
            beside = workspace.code.with_name("relative-link")
            beside.unlink(missing_ok=True)  # of a save that was interrupted
            beside.symlink_to("../" * path.count("/") + (inside or "."))
            os.rename(beside, place)
            return


def _scan(workspace: Workspace) -> _Found:
    before = {entry.path: entry for entry in workspace.manifest.entries}
    found = _Found()
    for path, status in _walk(workspace, before, found.notes):
        entry = before.get(path)
        if entry and _is_unchanged(workspace, path, status, entry):
            continue
        if stat.S_ISREG(status.st_mode):
            found.files.append(path)
        elif stat.S_ISLNK(status.st_mode):
            found.links.append(path)
        else:
            found.notes.append((path, f"{special_kind(status)}, not a file"))
    return found


def unsaved(
    workspace: Workspace, only: str = "", is_known: Callable[[str], bool] = lambda _folder: False
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what would be kept if the run ended now, links and special files too. Changes nothing in its work dir.

    Args:
        only: look only at this path, and below it.
        is_known: whether a folder need not be looked into any more.
    """
    before = {entry.path: entry for entry in workspace.manifest.entries}
    for path, status in _walk(workspace, before, [], only=only, is_known=is_known, is_used=True):
        with contextlib.suppress(OSError):  # it has just vanished
            if not (path in before and _is_unchanged(workspace, path, status, before[path])):
                yield path, status


def _walk(
    workspace: Workspace,
    before: Collection[str],
    notes: list[tuple[str, str]],
    *,
    only: str = "",
    is_known: Callable[[str], bool] = lambda _folder: False,
    is_used: bool = False,
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files that may be outputs.

    Args:
        before: the paths of the code.
        notes: gets what cannot be kept.
        only, is_known: as of `unsaved`.
        is_used: whether the command still uses them, so that modes stay as they are.
    """
    root, mounted = workspace.code, workspace.mounted
    ignored = GitIgnoreSpec.from_lines([*ALWAYS_IGNORED, *workspace.ignore], backend=_BACKEND)
    todo = [""]
    while todo:  # no recursion, because a run may nest folders very deep
        below = todo.pop()
        if is_known(below):
            continue
        try:
            with contextlib.suppress(OSError):
                if not is_used:
                    os.chmod(root / below, 0o755)  # the command may have removed our permission
            entries = list(os.scandir(root / below))
        except OSError as error:
            notes.append((below, f"cannot be read: {error.strerror}"))
            continue
        tag = _cache_tag(entries) if below else ""
        # A pattern such as `!.venv/` keeps it, and so does code that has the tag itself.
        if tag and f"{below}/{tag}" not in before and ignored.check_file(f"{below}/").include is None:
            notes.append((f"{below}/", f"{_KINDS[tag]}, as its {tag} says"))
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            is_dir = entry.is_dir(follow_symlinks=False)
            if only and not f"{only}/".startswith(f"{path}/") and not path.startswith(f"{only}/"):
                continue
            if ignored.match_file(path + "/" if is_dir else path):
                continue
            if is_dir:
                todo.append(path)
                continue
            with contextlib.suppress(FileNotFoundError):  # of a command that goes on
                if path in mounted and (entry.is_symlink() or not entry.stat().st_size):
                    continue  # the mount point itself; a run may have replaced it by another file
                yield path, entry.stat(follow_symlinks=False)


def _cache_tag(entries: list[os.DirEntry[str]]) -> str:
    """Return the file by which a folder says that it is a cache, or a virtual environment; "" if it does not."""
    tags = {entry.name: entry for entry in entries if entry.name in (_VENV, _CACHE_TAG)}
    if _VENV in tags and tags[_VENV].is_file(follow_symlinks=False):
        return _VENV
    tag = tags.get(_CACHE_TAG)
    # huggingface_hub tags the folder of its downloads, too. They are what a run that downloads is for.
    if tag is None or any(entry.name.startswith(_HUGGING_FACE) for entry in entries):
        return ""
    with contextlib.suppress(OSError):
        if tag.is_file(follow_symlinks=False):
            with open(tag.path, "rb") as file:
                return _CACHE_TAG if file.read(len(_CACHE_SIGNATURE)) == _CACHE_SIGNATURE else ""
    return ""


def _is_unchanged(workspace: Workspace, path: str, status: os.stat_result, entry: Entry) -> bool:
    if stat.S_ISLNK(status.st_mode):
        target = os.fsencode(os.readlink(workspace.code / path))
        return entry.mode == LINK and hashlib.sha256(target).hexdigest() == entry.digest
    if not stat.S_ISREG(status.st_mode) or entry.mode == LINK or status.st_size != entry.size:
        return False
    if bool(status.st_mode & stat.S_IXUSR) != (entry.mode == EXECUTABLE):
        return False
    is_untouched = status.st_mtime_ns == workspace.time_ns and status.st_ctime_ns < workspace.unpacked_ns
    return is_untouched or sha256(workspace.code / path) == entry.digest


def _add_links(root: Path, links: list[str], kept: set[str]) -> list[str]:
    """Add to `kept` the links that lead to kept files, also through other links. Returns the other links."""
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
    is_inside = found_target(str(root), path) is not None
    return said_target(path, os.readlink(root / path)) if is_inside else None


def _folders(paths: Iterable[str]) -> set[str]:
    return {path[:position] for path in paths for position, char in enumerate(path) if char == "/"}


def _move(source: Path, target: Path, beside: Path) -> None:
    status = source.lstat()
    # Another hard link to the file may exist anywhere; the artifact must not change through it.
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


def seal(run: int, target: Path) -> Iterator[ArtifactRecord]:
    """Take the write bits off everything below `target`, and list the files."""
    folders = [target]
    for path, status in below(target):
        place = target / path
        if stat.S_ISDIR(status.st_mode):
            folders.append(place)
            continue
        mode = mode_of(status)
        if mode != LINK:
            place.chmod(0o555 if mode == EXECUTABLE else 0o444)
        yield ArtifactRecord(run, printable(path), status.st_size, mode, None, "")
    for folder in reversed(folders):
        os.chmod(folder, 0o555)


def check_patterns(patterns: Sequence[str]) -> None:
    """Raise ValueError when one of the gitignore patterns cannot be read."""
    GitIgnoreSpec.from_lines(patterns, backend=_BACKEND)
