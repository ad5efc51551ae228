"""A snapshot of the code that a run sees: its manifest, its origin, and its blobs, ready to be sent.

It is taken from a working tree with its uncommitted changes, from another commit of the same repository, from a git
URL, or from a folder that is no repository. All of them are only read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from orchestrator.capture import blobs, gitmodules
from orchestrator.capture.git import Git, Location, Objects, Result, checked, commit_command, locate, parse_commit
from orchestrator.capture.gitmodules import Module, without_secrets
from orchestrator.capture.worktree import capture, check_still, hashed
from orchestrator.content.manifest import EXECUTABLE, FILE, LINK, Entry, Manifest, make
from orchestrator.errors import HomeUnusable, InvalidCommit, InvalidRepository, NotFound
from orchestrator.spec.run import Code, Submodule

if TYPE_CHECKING:
    from orchestrator.capture.folder import Listing

_STREAMED_BYTES = 1 << 20  # bigger objects are not read into memory as a whole
_REF = r"(?![-+])(?!.*(\.\.|@\{|//))[^\x00-\x20\x7f~^:?*\[\\]+\Z"
_SHA = r"[0-9a-fA-F]{7,64}\Z"
_FULL_SHA = r"([0-9a-f]{40}|[0-9a-f]{64})\Z"
_FETCH = ("--quiet", "--no-tags", "--no-prune", "--no-recurse-submodules")


class _Blobs(Protocol):
    def reader(self, digest: str, size: int) -> BinaryIO: ...


class Snapshot:
    """The code that a run will see.

    Attributes:
        manifest: its files.
        code: its hashes and its origin.
        subject: the first line of the commit's message.
        untracked: files that are neither tracked nor ignored and were left out, relative to the root.
        warnings: sentences for the user.
        left_out: submodules and other repositories that warnings name, relative to the root.
        modules: submodules that were left out; `submodules.with_submodules` adds them.
        sizes: the sizes in bytes of all its blobs (those of the manifest, and the diff), by their digests.
    """

    def __init__(
        self,
        manifest: Manifest,
        code: Code,
        subject: str,
        untracked: tuple[str, ...],
        warnings: tuple[str, ...],
        sizes: Mapping[str, int],
        sources: _Blobs,
        left_out: tuple[str, ...] = (),
        modules: tuple[Module, ...] = (),
    ) -> None:
        self.manifest, self.code, self.subject = manifest, code, subject
        self.untracked, self.warnings, self.left_out = untracked, warnings, left_out
        self.sizes, self._blobs, self.modules = sizes, sources, modules

    def open_blob(self, digest: str) -> BinaryIO:
        """Return a reader of one blob: a file, the text of a link, or the diff.

        Reading raises `Conflict` before the last bytes when the file has changed since the snapshot was taken.

        Args:
            digest: SHA-256, 64 hex digits; one of `sizes`.

        Raises:
            NotFound: when the snapshot has no such blob.
        """
        if digest not in self.sizes:
            raise NotFound(f"The snapshot has no blob {digest}.")
        return self._blobs.reader(digest, self.sizes[digest])


class _OnDisk(NamedTuple):
    """Blobs in a working tree, and the patch, if there is one."""

    root: bytes
    entries: Mapping[str, Entry]
    patch: blobs.Patch | None

    def reader(self, digest: str, size: int) -> BinaryIO:
        entry = self.entries.get(digest)
        if entry is None:
            assert self.patch is not None
            return blobs.checked_reader(self.patch.chunks(), digest, size, "The diff")
        place = self.root + b"/" + entry.path.encode()
        chunks = blobs.link_chunks(place) if entry.mode == LINK else blobs.file_chunks(place, size)
        return blobs.checked_reader(chunks, digest, size, entry.path)


class _InObjects(NamedTuple):
    """Blobs in git's object database, and those that Git LFS has."""

    objects: Objects
    oids: Mapping[str, str]
    fetched: Mapping[str, bytes]

    def reader(self, digest: str, size: int) -> BinaryIO:
        if place := self.fetched.get(digest):
            return blobs.checked_reader(blobs.file_chunks(place, size), digest, size, digest)
        return blobs.checked_reader(_object_chunks(self.objects, self.oids[digest], size), digest, size, digest)


def _object_chunks(objects: Objects, oid: str, size: int) -> Iterator[bytes]:
    if size > _STREAMED_BYTES:
        yield from objects.stream(oid)
    else:
        yield objects.read(oid)


def _place(cwd: Path | Location) -> Location:
    place = locate(cwd) if isinstance(cwd, Path) else cwd
    if place is None:
        raise InvalidRepository(f"{str(cwd)!r} is not in a git repository.", "Make one: git init.")
    return place


def of_working_tree(cwd: Path | Location, *, include_untracked: bool = False, ignore: Sequence[str] = ()) -> Snapshot:
    """Take the tracked files around `cwd` as they are on the disk, with all uncommitted changes.

    Args:
        cwd: any directory of the working tree (or its location); a run starts in the same one.
        include_untracked: also take untracked files that are not ignored.
        ignore: patterns of files that are left out, tracked or not.

    Raises:
        InvalidRepository: when the repository or a commit is missing (`folder.look` finds its files then), or a file cannot be taken.
        Conflict: when a file changed meanwhile.
    """
    place = _place(cwd)
    found = capture(place, include_untracked=include_untracked, ignore=ignore)
    manifest = make(found.entries)
    sources = {entry.digest: entry for entry in manifest.entries}
    sizes = {entry.digest: entry.size for entry in manifest.entries}
    diff, size = blobs.digest_of(found.patch.chunks())
    diff = diff if size else ""
    if diff:
        sizes[diff] = size
    subdir = blobs.path_text(place.subdir)
    modules = list(gitmodules.of_tree(found.links))
    here = tuple(
        Submodule(each.path, without_secrets(each.url)[0], each.commit) for each, is_here in modules if is_here
    )
    code = Code(manifest.tree, subdir, place.root.name, found.commit.oid, dirty=bool(diff), diff=diff, submodules=here)
    absent = tuple(module for module, is_here in modules if not is_here)
    untracked = () if include_untracked else found.untracked
    warnings = (*(module.warning for module in absent), *found.warnings, *_subdir_warning(manifest, subdir))
    bytes_of = _OnDisk(os.fsencode(place.root), sources, found.patch)
    return Snapshot(manifest, code, found.commit.subject, untracked, warnings, sizes, bytes_of, found.left_out, absent)


def of_folder(listing: Listing) -> Snapshot:
    """Take the files of a folder that is no repository, or has no commit yet.

    Raises:
        InvalidRepository: when a file cannot be taken, or all are too big.
        Conflict: when a file changed meanwhile.
    """
    blobs.check_size(((status.st_size, path) for path, status in listing.files.items()), is_tracked=False)
    root = os.fsencode(listing.root)
    found, pointers = hashed(root, listing.files)
    check_still(root, listing.files)
    manifest = make(found)
    sources = {entry.digest: entry for entry in manifest.entries}
    sizes = {entry.digest: entry.size for entry in manifest.entries}
    code = Code(manifest.tree, blobs.path_text(listing.subdir), listing.root.name)
    warnings = tuple(blobs.lfs_warning(pointers))
    return Snapshot(manifest, code, "", (), warnings, sizes, _OnDisk(root, sources, None))


def of_commit(cwd: Path | Location, ref: str) -> Snapshot:
    """Take the files of a commit of the repository around `cwd`. The working tree does not matter.

    Args:
        cwd: any directory of the working tree (or its location); a run starts in the same one.
        ref: anything that git resolves to a commit.

    Raises:
        InvalidCommit: when git cannot resolve it.
        InvalidRepository: when the repository is missing, or a file of the commit cannot be taken.
    """
    place = _place(cwd)
    git = Git(place.root)
    commit = None if ref.startswith("-") or "\0" in ref else _resolve(git, ref)
    if commit is None:
        raise _unresolved(ref, place.root.name)
    return of_objects(git, commit, subdir=blobs.path_text(place.subdir), repository=place.root.name)


def of_url(url: str, ref: str, cache: Path) -> Snapshot:
    """Take the files of a commit from any git URL, fetched now and without history.

    Args:
        url: anything that `git fetch` takes; the user's settings (url.*.insteadOf, credentials, ssh) apply.
        ref: branch, tag, `refs/pull/1/head` or SHA; "" for the default branch.
        cache: holds one bare repository for each URL, so that an unchanged commit is not fetched again.

    Raises:
        InvalidRepository: when nothing can be fetched, with git's message.
        InvalidCommit: when the repository has no such ref.
        HomeUnusable: when the cache cannot be written.
    """
    ref = ref or "HEAD"
    if not url or url.startswith("-") or any(ord(char) < 32 for char in url):
        raise InvalidRepository(f"{without_secrets(url)[0]!r} is not a git URL.")
    if url.lower().startswith("ext::"):
        raise InvalidRepository("A URL of the form ext:: runs a command; it is not allowed.")
    if os.path.exists(url):  # git runs in the cache, where a relative path means another one
        url = os.path.abspath(url)
    public, secret = without_secrets(url)
    name = _name_of(public)
    if not re.match(_REF, ref):
        raise _unresolved(ref, name)
    with _locked_cache(cache, public) as git:
        commit = _fetch(git, url, ref, name, secret)
        return of_objects(git, commit, repository=name, url=url, ref=ref)


def _unresolved(ref: str, repository: str) -> InvalidCommit:
    cure = "Name a branch, a tag or a commit that is in the repository."
    return InvalidCommit(f'Could not resolve commit "{ref}" for repo {repository}', cure)


def _resolve(git: Git, ref: str) -> str | None:
    result = git.run("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    return None if result.code else result.out.decode().strip()


def of_objects(
    git: Git, commit: str, *, subdir: str = "", repository: str = "", url: str = "", ref: str = ""
) -> Snapshot:
    """Take the files of a commit that this repository has.

    Args:
        url: where it was fetched from; "" for a repository of this machine. It may hold credentials.

    Raises:
        InvalidRepository: when a file of the commit cannot be taken.
    """
    head, listing = git.gather(commit_command(commit), ("ls-tree", "-r", "-l", "-z", "--full-tree", commit))
    subject = parse_commit(checked(head, "rev-list").out).subject
    rows, links = _parse_tree(checked(listing, "ls-tree").out)
    blobs.check_size((size, path.encode()) for path, _, _, size in rows)
    objects = Objects(git)
    entries: list[Entry] = []
    oids: dict[str, str] = {}
    pointers: dict[str, bytes] = {}
    contents = objects.read_many([oid for _, _, oid, size in rows if size <= _STREAMED_BYTES])
    for path, mode, oid, size in rows:
        content = next(contents) if size <= _STREAMED_BYTES else b""
        digest, _ = blobs.digest_of([content] if size <= _STREAMED_BYTES else objects.stream(oid))
        entries.append(Entry(path, mode, digest, size))
        oids.setdefault(digest, oid)
        if blobs.is_lfs_pointer(content, size):
            pointers[path] = content
    objects.close()
    entries, fetched = _with_lfs(git, entries, pointers)
    manifest = make(entries)
    modules = gitmodules.of_commit(git, commit, links, url)
    warnings = [module.warning for module in modules]
    warnings += [*blobs.lfs_warning(list(pointers)), *_subdir_warning(manifest, subdir)]
    code = Code(manifest.tree, subdir, repository, commit, url=without_secrets(url)[0], ref=ref)
    sizes = {entry.digest: entry.size for entry in entries}
    sources = _InObjects(objects, oids, fetched)
    return Snapshot(manifest, code, subject, (), tuple(warnings), sizes, sources, modules=modules)


def _with_lfs(git: Git, entries: list[Entry], pointers: dict[str, bytes]) -> tuple[list[Entry], dict[str, bytes]]:
    """Put the content of files that Git LFS has into the place of their pointers, which leave `pointers`."""
    if not pointers:
        return entries, {}
    from orchestrator.capture import lfs  # 1 ms: few commits have any

    objects, fetched = lfs.folder(git), dict[str, bytes]()
    for at, entry in enumerate(entries):
        if entry.path in pointers and (found := lfs.content(pointers[entry.path], objects)):
            entries[at] = entry._replace(digest=found.digest, size=found.size)
            fetched[found.digest] = found.place
            del pointers[entry.path]
    blobs.check_size((entry.size, entry.path.encode()) for entry in entries)
    return entries, fetched


def _parse_tree(listing: bytes) -> tuple[list[tuple[str, str, str, int]], dict[str, str]]:
    """Return rows of path, mode, object and size; and the commits of submodules by path."""
    rows: list[tuple[str, str, str, int]] = []
    links: dict[str, str] = {}
    for record in listing.split(b"\0")[:-1]:
        facts, _, raw_path = record.partition(b"\t")
        mode, kind, oid, size = facts.split()
        path = blobs.path_text(raw_path)
        if kind != b"blob":
            links[path] = oid.decode()
            continue
        # Old repositories have further modes (100664); git itself reads only the owner's x of them.
        plain = EXECUTABLE if int(mode, 8) & 0o100 else FILE
        rows.append((path, LINK if mode == LINK.encode() else plain, oid.decode(), int(size)))
    return rows, links


def _subdir_warning(manifest: Manifest, subdir: str) -> Iterator[str]:
    if subdir and not any(entry.path.startswith(subdir + "/") for entry in manifest.entries):
        yield f"The directory {subdir!r} has no files in this snapshot."


def _name_of(url: str) -> str:
    """Return the name that a clone of this URL would get."""
    parts = [part.removesuffix(".git") for part in re.split(r"[/:]", url)]
    return next((part for part in reversed(parts) if part), url)


@contextmanager
def _locked_cache(cache: Path, public: str) -> Iterator[Git]:
    """Yield the bare repository for this URL, locked against other fetches."""
    key = hashlib.sha256(os.fsencode(public)).hexdigest()[:32]
    folder = cache / key
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(cache / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeUnusable(f"The cache {str(cache)!r} cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in (*folder.glob("*.lock"), *folder.glob("refs/spell/*.lock"), *folder.glob("objects/pack/tmp_*")):
            stale.unlink()  # left by a killed git: we hold the lock
        git = Git(cache, git_dir=folder, settings=("fetch.unpackLimit=1",))  # a pack arrives completely or not at all
        if not (folder / "HEAD").exists():
            git.output("init", "--quiet", "--bare", "--template=")
        yield git
    finally:
        os.close(lock)


def _fetch(git: Git, url: str, ref: str, name: str, secret: str) -> str:
    """Fetch a ref and return its commit."""
    known = _resolve(git, ref) if re.match(_FULL_SHA, ref) else None
    if known:
        return known
    target = f"refs/spell/{hashlib.sha256(ref.encode()).hexdigest()[:16]}"
    wanted = ("--", url, f"+{ref}:{target}")
    result = git.run_shown("fetch", *_FETCH, "--depth=1", *wanted, hide=secret)
    if result.code and b"does not support shallow" in result.err:  # a plain web server without git
        result = git.run_shown("fetch", *_FETCH, *wanted, hide=secret)
    if result.code and re.match(_SHA, ref) and _is_missing(result):
        # An old server sends only commits that its refs name, and no server accepts a shortened SHA.
        cut_off = git.git_dir is not None and (git.git_dir / "shallow").exists()
        whole = ("--prune", *(("--unshallow",) if cut_off else ()), "--", url, "+refs/*:refs/spell/all/*")
        result = git.run_shown("fetch", *_FETCH, *whole, hide=secret)
        target = ref
    commit = None if result.code else _resolve(git, target)
    if result.code and not _is_missing(result):
        reason = result.reason.replace(secret + "@", "") if secret else result.reason
        shown = without_secrets(url)[0]
        raise InvalidRepository(f"Could not fetch {shown}: {reason}", f"See whether git can: git ls-remote {shown}")
    if commit is None:
        raise _unresolved(ref, name)
    return commit


def _is_missing(result: Result) -> bool:
    """Whether the remote answered, but has no such ref."""
    words = (b"couldn't find remote ref", b"unadvertised object", b"not our ref", b"no such remote ref")
    return any(word in result.err for word in words)
