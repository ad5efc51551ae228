"""Captures a git working tree as it is on the disk: its files, their hashes, and its difference to the commit as a patch.

The files are those in the index, plus untracked ones on request, without those that `.spellignore` names. Their bytes are taken raw, so that line endings and Git
LFS content are what the user's own command would read. Git decides what counts as a difference, by the repository's
attributes and without the user's settings (see `git`).

The patch starts from a recursive checkout of the commit: it names a change inside a submodule by its path, relative to
the commit of the submodule that the outer commit records.

Git compares through a copy of the index, because `git diff` may write the index that it uses, and because entries that
hide files on the disk must be replaced first (see `_Repository.redone`). If the user's settings convert line endings,
the copy is refreshed with them first. So a file that `git status` calls unchanged stays unchanged, even if its bytes
differ from the commit's, and a changed file is in the patch with its bytes on the disk.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.capture import blobs, patterns
from orchestrator.capture.git import (
    CONVERSIONS_COMMAND,
    Commit,
    Git,
    Location,
    checked,
    commit_command,
    converts,
    end,
    finish,
    locate,
    parse_commit,
)
from orchestrator.capture.gitmodules import Link
from orchestrator.content.manifest import EXECUTABLE, FILE, LINK, Entry, special_kind
from orchestrator.content.scratch import Scratch
from orchestrator.errors import InvalidRepository

_GITLINK = b"160000"
_CRLF_MAX_BYTES = 1 << 20
_LAST_DAY_S = 2**31 - 1
_NAMED = 3
_STAGED = ("--cached", "--raw", "--no-renames", "--no-abbrev", "-z", "--ignore-submodules=none")
_REFRESH = (
    "-q", "--unmerged", "--ignore-submodules", "--refresh",
    "--force-write-index",  # it marks racily changed entries; git before 2.36 would not write the index for these alone
    "-z", "--index-info",
)  # fmt: skip
_DIFF = (
    "--patch", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--unified=3",
    "--inter-hunk-context=0", "--diff-algorithm=myers", "--indent-heuristic", "-O/dev/null", "-l1000",
    "--ignore-submodules=dirty", "--submodule=short",
)  # fmt: skip


class NoCommit(InvalidRepository):
    """A repository without commits: only the files of its folder can be taken."""


class _Repository:
    """One repository of the working tree: the outermost one or a submodule. Paths are relative to its root.

    Attributes:
        place: its location.
        prefix: its path in the outermost one: b"" or b"libs/x/".
        base: the commit (or the empty tree) from which its patch starts.
        tracked: the paths in its index, with the tag that `git ls-files -v` gives them.
        left_out: the paths in its index that `.spellignore` leaves out.
        converts: whether the user's settings convert line endings between disk and git.
        staged: paths that differ between base and index, with the base's blob; filled only if needed.
        links: its submodules, with the commits in its index.
        modules: its initialised submodules.
        untracked: files that are neither tracked nor ignored.
        nested: untracked folders that are git repositories.
        redone: paths whose index entries must be replaced, with their modes, so that git sees the files on the disk:
            untracked files that are included; entries marked assume-unchanged or skip-worktree; and staged ones
            whose line endings `git add` has converted by the user's settings.
    """

    def __init__(self, place: Location, prefix: bytes, base: str, *, converts: bool) -> None:
        self.place, self.prefix, self.base, self.converts = place, prefix, base, converts
        self.tracked: dict[bytes, bytes] = {}
        self.left_out: list[bytes] = []
        self.staged: dict[bytes, str] = {}
        self.links: dict[bytes, str] = {}
        self.modules: list[bytes] = []
        self.untracked: list[bytes] = []
        self.nested: list[bytes] = []
        self.redone: dict[bytes, str] = {}


class Capture(NamedTuple):
    """The contents of a working tree.

    Attributes:
        commit: the commit of HEAD.
        entries: one for each file.
        patch: the difference to the commit.
        untracked: files that are neither tracked nor ignored, whether included or not.
        warnings: sentences for the user.
        left_out: files, submodules and other repositories that warnings name.
        links: its submodules.
    """

    commit: Commit
    entries: tuple[Entry, ...]
    patch: blobs.Patch
    untracked: tuple[str, ...]
    warnings: tuple[str, ...]
    left_out: tuple[str, ...]
    links: tuple[Link, ...]


def capture(place: Location, *, include_untracked: bool, ignore: Sequence[str] = ()) -> Capture:
    """Hash the files of a working tree and take its patch.

    Args:
        ignore: patterns of files that are left out, tracked or not; the patch has what they changed.

    Raises:
        NoCommit: when it has no commit.
        InvalidRepository: when it is too big, or holds a file that cannot be taken.
        Conflict: when a file changed meanwhile.
    """
    root = os.fsencode(place.root)
    commit, repositories = _survey(place, ignore)
    tracked = _look(root, (r.prefix + path for r in repositories for path in r.tracked))
    untracked = [r.prefix + path for r in repositories for path in r.untracked]
    files = tracked | (_look(root, untracked) if include_untracked else {})
    blobs.check_size((status.st_size, path) for path, status in files.items())
    for repository in repositories:
        _redo(root, repository, files)
    with Scratch() as scratch:
        patch = blobs.Patch(scratch / "patch")
        first = _start_diff(repositories[0], scratch / "0", patch)
        try:
            entries, pointers = hashed(root, files)
            finish(first, "diff")
        finally:
            end(first)
        for number, repository in enumerate(repositories[1:], 1):
            finish(_start_diff(repository, scratch / str(number), patch), "diff")
    check_still(root, files)
    warnings = (*_warnings(repositories, tracked), *blobs.lfs_warning(pointers))
    names = tuple(path.decode(errors="backslashreplace") for path in untracked)
    left_out = (
        r.prefix + path for r in repositories for path in (*r.left_out, *r.nested, *(set(r.links) - set(r.modules)))
    )
    told = tuple(path.decode(errors="backslashreplace").rstrip("/") for path in left_out)
    return Capture(commit, tuple(entries), patch, names, warnings, told, tuple(_links(repositories)))


def _links(repositories: list[_Repository]) -> Iterator[Link]:
    for each in repositories:
        for path, commit in each.links.items():
            recorded = each.staged.get(path, commit)
            yield Link(each.place.root, each.prefix, path, recorded, path in each.modules)


def _survey(place: Location, ignore: Sequence[str]) -> tuple[Commit, list[_Repository]]:
    commit, outer = _read(place, b"", "HEAD", ignore)
    if commit is None:
        raise NoCommit(f"Repository {place.root.name} has no commits yet.", "Make one: git add, git commit.")
    found, pending = [], [outer]
    while pending:
        repository = pending.pop()
        found.append(repository)
        for path, wanted in repository.links.items():
            inner = _module(repository.place.root / os.fsdecode(path))
            if inner is not None:
                repository.modules.append(path)
                base = repository.staged.get(path, wanted)
                pending.append(_read(inner, repository.prefix + path + b"/", base, ignore)[1])
    return commit, found


def _module(folder: Path) -> Location | None:
    place = locate(folder) if folder.is_dir() and not folder.is_symlink() else None
    return place if place is not None and not place.subdir and folder.samefile(place.root) else None


def _read(place: Location, prefix: bytes, base: str, ignore: Sequence[str]) -> tuple[Commit | None, _Repository]:
    """List a repository. The commit is None if `base` names none; its base is the empty tree then."""
    git = Git(place.root)
    rules = tuple(patterns.options(ignore, prefix))
    head, index, others, *left_out, conversions = git.gather(
        commit_command(base),
        ("ls-files", "-z", "--cached", "--stage", "-v"),
        ("ls-files", "-z", "--others", "--exclude-standard", *rules),
        *([("ls-files", "-z", "--cached", "--ignored", *rules)] if rules else []),
        as_checked_out=[CONVERSIONS_COMMAND],
    )
    commit = None if head.code else parse_commit(head.out)
    if b"bad revision" not in head.err and not (prefix and b"bad object" in head.err):
        checked(head, "rev-list")
    base = commit.oid if commit else _empty(b"tree", len(base))
    repository = _Repository(place, prefix, base, converts=converts(conversions))
    for record in checked(index, "ls-files").out.split(b"\0")[:-1]:
        facts, _, path = record.partition(b"\t")
        tag, mode, oid, _stage = facts.split(b" ")
        if mode == _GITLINK:
            repository.links[path] = oid.decode()
        else:
            repository.tracked[path] = tag
    for path in b"".join(checked(result, "ls-files").out for result in left_out).split(b"\0")[:-1]:
        if repository.tracked.pop(path, None) is not None:
            repository.left_out.append(path)
    for path in checked(others, "ls-files").out.split(b"\0")[:-1]:
        if path.endswith(b"/"):
            repository.nested.append(path)
        elif path.rpartition(b"/")[2] != b".DS_Store":
            repository.untracked.append(path)
    if commit and (repository.links or repository.converts):
        rows = git.output("diff-index", *_STAGED, base, "--").split(b"\0")[:-1]
        for facts, path in zip(rows[::2], rows[1::2], strict=True):
            repository.staged[path] = facts.split(b" ")[2].decode()
    return commit, repository


def _empty(kind: bytes, oid_length: int) -> str:
    """Return the hash of the empty blob or tree, which git knows without storing it."""
    digest = hashlib.sha256 if oid_length == 64 else hashlib.sha1
    return digest(kind + b" 0\0").hexdigest()


def _look(root: bytes, paths: Iterable[bytes]) -> dict[bytes, os.stat_result]:
    """Return the status of the files at these paths. Git counts missing files, and folders, as deleted."""
    found: dict[bytes, os.stat_result] = {}
    folders = {b"": True}
    for path in paths:
        if not _is_in_real_folder(root, path, folders):
            continue
        try:
            status = os.lstat(root + b"/" + path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _unreadable(path, error) from error
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            found[path] = status
        elif not stat.S_ISDIR(status.st_mode):
            raise InvalidRepository(
                f"{path.decode(errors='replace')!r} is tracked by git, but {special_kind(status)} lies there.",
                "Remove it, or bring the file back with git checkout.",
            )
    return found


def _is_in_real_folder(root: bytes, path: bytes, known: dict[bytes, bool]) -> bool:
    """Whether no folder above `path` is a link: git does not follow them, so we must not."""
    folder = path.rpartition(b"/")[0]
    if folder not in known:
        parts = folder.split(b"/")
        for depth in range(1, len(parts) + 1):
            part = b"/".join(parts[:depth])
            if part not in known:
                known[part] = known[b"/".join(parts[: depth - 1])] and not os.path.islink(root + b"/" + part)
    return known[folder]


def _unreadable(path: bytes, error: OSError) -> InvalidRepository:
    return InvalidRepository(
        f"{path.decode(errors='replace')!r} cannot be read: {error.strerror}.", "Change its permissions (chmod u+r)."
    )


def _redo(root: bytes, repository: _Repository, files: dict[bytes, os.stat_result]) -> None:
    """Fill `repository.redone`; `files` are all files of the snapshot."""
    prefix = repository.prefix
    paths = [path for path, tag in repository.tracked.items() if tag.islower()]
    paths += [path for path, tag in repository.tracked.items() if tag == b"S" and prefix + path in files]
    paths += [path for path in repository.staged if _has_crlf(root, prefix + path, files)]
    paths += [path for path in repository.untracked if prefix + path in files]
    for path in paths:
        status = files.get(prefix + path)
        repository.redone[path] = FILE if status is None else _mode(status)


def _has_crlf(root: bytes, path: bytes, files: dict[bytes, os.stat_result]) -> bool:
    status = files.get(path)
    if status is None or not stat.S_ISREG(status.st_mode) or status.st_size > _CRLF_MAX_BYTES:
        return False
    try:
        return b"\r\n" in b"".join(blobs.file_chunks(root + b"/" + path, status.st_size))
    except OSError as error:
        raise _unreadable(path, error) from error


def _mode(status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return LINK
    return EXECUTABLE if status.st_mode & stat.S_IXUSR else FILE


def _start_diff(repository: _Repository, scratch: Path, patch: blobs.Patch) -> subprocess.Popen[bytes]:
    """Start to append a repository's difference to its base to the patch."""
    scratch.mkdir()
    git = Git(
        repository.place.root,
        index_file=_copy_index(repository.place.git_dir / "index", scratch / "index"),
        settings=(f"lfs.storage={scratch / 'lfs'}",),  # else Git LFS stores the files that it hashes in .git
    )
    if repository.redone or repository.converts:
        _refresh(git, repository, scratch / "index")
    prefix = os.fsdecode(repository.prefix)
    # Git names a renamed file without the prefix, so a patch with prefix and renames would not apply.
    renames = "--no-renames" if prefix else "--find-renames=50%"
    return git.start(
        "diff", *_DIFF, renames, f"--src-prefix=a/{prefix}", f"--dst-prefix=b/{prefix}", repository.base, "--", ".",
        *(f":(exclude,literal){os.fsdecode(path)}" for path in repository.modules),
        stdout=patch.descriptor,
    )  # fmt: skip


def _refresh(git: Git, repository: _Repository, index: Path) -> None:
    blob = _empty(b"blob", len(repository.base))
    entries = [f"{mode} {blob} 0\t".encode() + path + b"\0" for path, mode in repository.redone.items()]
    git._replace(as_checked_out=True).output("update-index", *_REFRESH, stdin=b"".join(entries))
    # Git distrusts an entry that is as new as the index, and would compare it again, now by other settings.
    os.utime(index, (_LAST_DAY_S, _LAST_DAY_S))


def _copy_index(source: Path, target: Path) -> Path:
    """Copy an index with its time, by which git finds the files that changed in the moment after it was written."""
    try:
        with open(source, "rb") as index:
            target.write_bytes(index.read())
            times = os.fstat(index.fileno())
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    except FileNotFoundError:
        pass  # a repository without an index has nothing staged
    return target


def hashed(root: bytes, files: dict[bytes, os.stat_result]) -> tuple[list[Entry], list[str]]:
    """Return the entries, and the paths of those that are Git LFS pointers."""
    entries: list[Entry] = []
    pointers: list[str] = []
    for path, status in files.items():
        name, place, mode = blobs.path_text(path), root + b"/" + path, _mode(status)
        try:
            if mode == LINK:
                digest, size = blobs.digest_of(blobs.link_chunks(place))
            else:
                digest, size, is_pointer = _hash_file(place, status.st_size)
                if is_pointer:
                    pointers.append(name)
        except FileNotFoundError as error:
            raise blobs.changed(name) from error
        except OSError as error:
            raise _unreadable(path, error) from error
        entries.append(Entry(name, mode, digest, size))
    return entries, pointers


def _hash_file(place: bytes, size: int) -> tuple[str, int, bool]:
    digest, total, start = hashlib.sha256(), 0, b""
    for chunk in blobs.file_chunks(place, size):
        digest.update(chunk)
        total += len(chunk)
        start = start or chunk
    return digest.hexdigest(), total, blobs.is_lfs_pointer(start, total)


def check_still(root: bytes, files: dict[bytes, os.stat_result]) -> None:
    """Refuse a capture whose hashes may be of another moment than the patch."""
    for path, before in files.items():
        try:
            now = os.lstat(root + b"/" + path)
        except OSError as error:
            raise blobs.changed(path.decode()) from error
        if (now.st_mtime_ns, now.st_size, now.st_ino, now.st_mode) != (
            before.st_mtime_ns, before.st_size, before.st_ino, before.st_mode,
        ):  # fmt: skip
            raise blobs.changed(path.decode())


def _warnings(repositories: list[_Repository], tracked: dict[bytes, os.stat_result]) -> Iterator[str]:
    if ignored := [repository.prefix + path for repository in repositories for path in repository.left_out]:
        names = ", ".join(path.decode(errors="replace") for path in ignored[:_NAMED]) + ", …" * (len(ignored) > _NAMED)
        yield f"Tracked files that .spellignore names are left out: {names}"
    for repository in repositories:
        for path in repository.nested:
            name = (repository.prefix + path).decode(errors="replace")
            yield f"{name!r} is a git repository inside this one and is left out."
        sparse = [p for p, tag in repository.tracked.items() if tag == b"S" and repository.prefix + p not in tracked]
        if sparse:
            many = "1 tracked file lies", "is"
            many = many if len(sparse) == 1 else (f"{len(sparse)} tracked files lie", "are")
            yield f"{many[0]} outside the sparse checkout and {many[1]} left out."
