"""Real git repositories for the tests of snapshots, and a second opinion on what lies in a folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.capture.snapshot import Snapshot

Tree = dict[str, tuple[str, str]]


def isolate_git(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Let git see no settings but those in the file that is returned."""
    for name in os.environ:
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    config = folder / "gitconfig"
    config.write_text('[user]\n\tname = Ada\n\temail = ada@example.org\n[protocol "file"]\n\tallow = always\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("HOME", str(folder))
    return config


class Repo:
    """A git repository in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *args: str, stdin: bytes | None = None) -> str:
        """Run git; fails the test where git fails."""
        done = subprocess.run(["git", *args], cwd=self.path, input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, (args, done.stderr.decode())
        return done.stdout.decode(errors="surrogateescape").strip()

    def write(self, files: dict[str, bytes]) -> None:
        """Write files, and the folders they need."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def stage(self, files: dict[str, bytes]) -> None:
        """Write files and add them to the index."""
        self.write(files)
        self.git("add", "--all")

    def commit(self, files: dict[str, bytes] | None = None, message: str = "A commit") -> str:
        """Write files, add everything, commit; returns the commit."""
        self.write(files or {})
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


def tree_on_disk(root: Path) -> Tree:
    """Mode and SHA-256 of all files below a folder, without those of git."""
    found: Tree = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name != ".git"]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in [*files, *links]:
            path = Path(folder, name)
            if name == ".git":
                continue
            if path.is_symlink():
                mode, content = "120000", os.readlink(os.fsencode(path))
            else:
                mode, content = ("100755" if path.stat().st_mode & 0o100 else "100644"), path.read_bytes()
            found[path.relative_to(root).as_posix()] = (mode, hashlib.sha256(content).hexdigest())
    return found


def tree_of(snapshot: Snapshot) -> Tree:
    """Mode and digest of all files of a snapshot, after reading every blob of it."""
    for entry in snapshot.manifest.entries:
        with snapshot.open_blob(entry.digest) as blob:
            content = blob.read()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.size, entry.digest), entry.path
    return {entry.path: (entry.mode, entry.digest) for entry in snapshot.manifest.entries}


def patch_of(snapshot: Snapshot) -> bytes:
    """The diff of a snapshot; empty for a clean one."""
    if not snapshot.code.diff:
        return b""
    with snapshot.open_blob(snapshot.code.diff) as blob:
        return blob.read()


def apply_to_clean_checkout(snapshot: Snapshot, source: Repo, target: Path) -> Tree:
    """What `git apply` makes of a fresh recursive clone of the snapshot's commit."""
    source.git("clone", "--quiet", "--no-local", "--recurse-submodules", str(source.path), str(target))
    clone = Repo(target)
    clone.git("-c", "advice.detachedHead=false", "checkout", "--quiet", "--recurse-submodules", snapshot.code.commit)
    if snapshot.code.diff:
        clone.git("apply", "-", stdin=patch_of(snapshot))
    return tree_on_disk(target)


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and modification time of every file below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            # Every reader of a split index touches the shared part, lest git remove it as unused.
            time_ns = 0 if path.name.startswith("sharedindex.") else path.stat().st_mtime_ns
            found[str(path)] = (hashlib.sha256(path.read_bytes()).hexdigest(), time_ns)
    return found
