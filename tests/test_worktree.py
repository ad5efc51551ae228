"""F25, F26: a snapshot of a working tree is the working tree, whatever its files are and however git is set up."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from git_changes import CHANGES, START
from git_repos import Repo, apply_to_clean_checkout, fingerprint, isolate_git, patch_of, tree_of, tree_on_disk

from orchestrator.capture import snapshot
from orchestrator.errors import Conflict, InvalidRepository


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return isolate_git(monkeypatch, tmp_path)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "project")
    made.commit(START, "The first commit")
    return made


@pytest.mark.parametrize("name", CHANGES)
def test_f25_the_snapshot_is_the_local_tree(repo: Repo, tmp_path: Path, name: str) -> None:
    CHANGES[name](repo)
    before = fingerprint(repo.path / ".git")
    taken = snapshot.of_working_tree(repo.path)
    assert fingerprint(repo.path / ".git") == before
    assert tree_of(taken) == tree_on_disk(repo.path)
    assert taken.code.dirty is (name not in ("nothing", "unpushed_commit"))
    assert taken.code.commit == repo.git("rev-parse", "HEAD")
    assert (taken.untracked, taken.warnings) == ((), ())
    assert b"* Unmerged" not in patch_of(taken)
    assert apply_to_clean_checkout(taken, repo, tmp_path / "clone") == tree_on_disk(repo.path)


@pytest.mark.parametrize("name", CHANGES)
def test_f26_hostile_settings_change_nothing(repo: Repo, tmp_path: Path, config: Path, name: str) -> None:
    CHANGES[name](repo)
    expected = snapshot.of_working_tree(repo.path)
    with config.open("a") as file:
        file.write(_hostile_settings(tmp_path))
    before = fingerprint(repo.path / ".git")
    taken = snapshot.of_working_tree(repo.path)
    assert fingerprint(repo.path / ".git") == before
    assert (taken.code, taken.manifest) == (expected.code, expected.manifest)
    assert patch_of(taken) == patch_of(expected)
    assert (taken.subject, taken.untracked, taken.warnings) == (expected.subject, expected.untracked, ())
    assert not (tmp_path / "called").exists()


def _hostile_settings(folder: Path) -> str:
    hooks = folder / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "reference-transaction", "tool"):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >>{folder}/called\n")
        (hooks / name).chmod(0o755)
    (folder / "attributes").write_text("* diff=evil\n*.txt text=auto\n*.sh -diff\n")
    (folder / "order").write_text("run.sh\n*.txt\n")
    return f"""
[color]
    ui = always
    diff = always
[core]
    attributesFile = {folder}/attributes
    autocrlf = true
    bigFileThreshold = 1
    checkStat = minimal
    compression = 9
    eol = crlf
    fsmonitor = {hooks}/tool
    hooksPath = {hooks}
    pager = {hooks}/tool
    quotePath = false
    safecrlf = true
    splitIndex = true
    untrackedCache = true
    whitespace = tab-in-indent
[diff]
    algorithm = histogram
    colorMoved = zebra
    context = 0
    external = {hooks}/tool
    ignoreSubmodules = all
    indentHeuristic = false
    interHunkContext = 9
    mnemonicPrefix = true
    noprefix = true
    orderFile = {folder}/order
    relative = true
    renameLimit = 1
    renames = false
    submodule = log
    suppressBlankEmpty = true
    wsErrorHighlight = all
[diff "evil"]
    cachetextconv = true
    command = {hooks}/tool
    textconv = {hooks}/tool
[log]
    showSignature = true
[status]
    short = true
    showUntrackedFiles = no
[submodule]
    recurse = true
"""


@pytest.mark.parametrize("value", ["true", "input"])
def test_f26_autocrlf_on_checkout_still_gives_the_bytes_on_disk(
    repo: Repo, tmp_path: Path, config: Path, value: str
) -> None:
    with config.open("a") as file:
        file.write(f"[core]\n\tautocrlf = {value}\n")
    repo.git("clone", "--quiet", str(repo.path), str(tmp_path / "clone"))
    clone = tmp_path / "clone"
    taken = snapshot.of_working_tree(clone)
    assert tree_of(taken) == tree_on_disk(clone)
    assert not taken.code.dirty
    assert (b"\r\n" in (clone / "a.py").read_bytes()) is (value == "true")
    os.utime(clone / "a.py", ns=(0, 0))
    assert not snapshot.of_working_tree(clone).code.dirty
    (clone / "a.py").write_bytes((clone / "a.py").read_bytes() + b"x = 1\r\n")
    edited = snapshot.of_working_tree(clone)
    assert edited.code.dirty
    assert patch_of(edited).count(b"diff --git") == 1
    assert apply_to_clean_checkout(edited, repo, tmp_path / "again") == tree_on_disk(clone)


def test_f26_variables_of_a_git_hook_name_no_other_repository(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repo(tmp_path / "other")
    other.commit({"other": b"other"})
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.path / ".git/index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.path))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=0")
    repo.write({"a.py": b"edited\n"})
    taken = snapshot.of_working_tree(repo.path / "old")
    assert tree_of(taken) == tree_on_disk(repo.path)
    assert (taken.code.repository, taken.code.subdir) == ("project", "old")
    assert b"diff --git a/a.py b/a.py" in patch_of(taken)


def test_f25_untracked_files_are_listed_or_included(repo: Repo, tmp_path: Path) -> None:
    files = {"new/a b.py": b"new\n", "data\r.bin": bytes(range(256)), "void": b"", "ünï": b"crlf\r\n"}
    repo.write({**files, "ignored.log": b"", ".DS_Store": b"finder"})
    (repo.path / "new/link").symlink_to("nowhere")
    (repo.path / "void").chmod(0o700)
    names = sorted([*files, "new/link"])
    without = snapshot.of_working_tree(repo.path)
    assert sorted(without.untracked) == names
    assert not without.code.dirty
    assert not {entry.path for entry in without.manifest.entries} & set(names)
    before = fingerprint(repo.path / ".git")
    taken = snapshot.of_working_tree(repo.path, include_untracked=True)
    assert fingerprint(repo.path / ".git") == before
    (repo.path / "ignored.log").unlink()
    (repo.path / ".DS_Store").unlink()
    assert tree_of(taken) == tree_on_disk(repo.path)
    assert taken.code.dirty
    assert taken.untracked == ()
    assert apply_to_clean_checkout(taken, repo, tmp_path / "clone") == tree_on_disk(repo.path)


def test_f25_a_file_removed_from_the_index_is_untracked(repo: Repo) -> None:
    repo.git("rm", "--quiet", "--cached", "a.py")
    taken = snapshot.of_working_tree(repo.path)
    assert taken.untracked == ("a.py",)
    assert "a.py" not in tree_of(taken)
    included = snapshot.of_working_tree(repo.path, include_untracked=True)
    assert tree_of(included) == tree_on_disk(repo.path)
    assert not included.code.dirty


def test_f25_files_seen_only_through_a_link_are_deleted(repo: Repo, tmp_path: Path) -> None:
    (repo.path / "old").rename(tmp_path / "elsewhere")
    (repo.path / "old").symlink_to(tmp_path / "elsewhere")
    taken = snapshot.of_working_tree(repo.path)
    assert "old/name.txt" not in tree_of(taken)
    assert taken.untracked == ("old",)


def test_f25_submodules_are_part_of_the_tree(repo: Repo, tmp_path: Path) -> None:
    inner = Repo(tmp_path / "inner")
    inner.commit({"deep.txt": b"deep\n", "picture": bytes(256)})
    library = Repo(tmp_path / "library")
    library.commit({"lib.py": b"".join(b"lib %d\n" % n for n in range(30)), "drop.py": b"drop\n"})
    library.git("submodule", "--quiet", "add", str(inner.path), "inner dir")
    library.commit()
    repo.git("submodule", "--quiet", "add", str(library.path), "libs/library")
    repo.git("submodule", "--quiet", "update", "--init", "--recursive")
    repo.commit()
    clean = snapshot.of_working_tree(repo.path)
    assert tree_of(clean) == tree_on_disk(repo.path)
    assert (clean.code.dirty, clean.warnings) == (False, ())

    nested = Repo(repo.path / "libs/library")
    nested.commit({"lib.py": b"committed inside\n"})  # moves the submodule away from what the outer commit records
    nested.git("mv", "drop.py", "moved.py")
    nested.write({"inner dir/deep.txt": b"edited\n", "inner dir/new": b"untracked\n"})
    repo.write({"a.py": b"edited\n"})
    before = fingerprint(repo.path / ".git")
    taken = snapshot.of_working_tree(repo.path / "libs", include_untracked=True)
    assert fingerprint(repo.path / ".git") == before
    assert tree_of(taken) == tree_on_disk(repo.path)
    assert b"Subproject" not in patch_of(taken)
    assert apply_to_clean_checkout(taken, repo, tmp_path / "clone") == tree_on_disk(repo.path)


def test_f25_a_submodule_that_is_new_or_not_initialised(repo: Repo, tmp_path: Path) -> None:
    library = Repo(tmp_path / "library")
    library.commit({"lib.py": b"lib\n"})
    repo.git("submodule", "--quiet", "add", str(library.path), "lib")
    taken = snapshot.of_working_tree(repo.path)
    assert tree_of(taken) == tree_on_disk(repo.path)
    assert apply_to_clean_checkout(taken, repo, tmp_path / "first") == tree_on_disk(repo.path)
    repo.commit()
    repo.git("clone", "--quiet", str(repo.path), str(tmp_path / "clone"))
    bare = snapshot.of_working_tree(tmp_path / "clone")
    assert tree_of(bare) == tree_on_disk(tmp_path / "clone")
    assert not bare.code.dirty
    assert [warning for warning in bare.warnings if "'lib' is not initialised" in warning]


def test_f25_a_nested_repository_is_left_out_with_a_warning(repo: Repo) -> None:
    Repo(repo.path / "vendor/thing").commit({"x": b"x"})
    for include in (False, True):
        taken = snapshot.of_working_tree(repo.path, include_untracked=include)
        assert ["'vendor/thing/' is a git repository" in warning for warning in taken.warnings] == [True]
        assert not taken.code.dirty


def test_f25_lfs_files_are_taken_as_they_lie_on_disk(repo: Repo, config: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 5\n" % (b"0" * 64)
    repo.commit({".gitattributes": b"*.big filter=lfs -text\n", "here.big": pointer, "absent.big": pointer})
    with config.open("a") as file:  # as Git LFS would: the content is on disk, and the pointer is what git hashes
        file.write('[filter "lfs"]\n\tclean = "sed s/.*/changed/"\n')
    repo.write({"here.big": b"content of the big file\n"})
    taken = snapshot.of_working_tree(repo.path)
    assert tree_of(taken) == tree_on_disk(repo.path)
    assert b"\n+changed\n" in patch_of(taken)
    assert ["absent.big" in warning for warning in taken.warnings] == [True]


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="needs git-lfs")
def test_f25_git_lfs_itself_stores_nothing_in_the_repository(repo: Repo) -> None:
    repo.git("lfs", "install")
    repo.git("lfs", "track", "*.bin")
    repo.commit({"data.bin": os.urandom(5000)})
    os.utime(repo.path / "data.bin", (0, 0))
    assert not snapshot.of_working_tree(repo.path).code.dirty
    repo.write({"data.bin": os.urandom(6000)})
    before = fingerprint(repo.path / ".git")
    taken = snapshot.of_working_tree(repo.path)
    assert fingerprint(repo.path / ".git") == before
    assert tree_of(taken) == tree_on_disk(repo.path)
    assert b"\n+size 6000\n" in patch_of(taken)


def test_f25_linked_worktree_and_detached_head(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"), "HEAD")
    (tmp_path / "linked/a.py").write_bytes(b"edited here only\n")
    taken = snapshot.of_working_tree(tmp_path / "linked")
    assert tree_of(taken) == tree_on_disk(tmp_path / "linked")
    assert (taken.code.dirty, taken.code.repository) == (True, "linked")
    assert not snapshot.of_working_tree(repo.path).code.dirty


def test_f25_a_sparse_checkout_says_what_is_missing(repo: Repo) -> None:
    repo.git("sparse-checkout", "set", "--no-cone", "/*", "!/old")
    taken = snapshot.of_working_tree(repo.path)
    assert tree_of(taken) == tree_on_disk(repo.path)
    assert not taken.code.dirty
    assert "sparse" in taken.warnings[0]


def test_f25_a_name_that_is_not_utf8_is_refused_by_name(repo: Repo) -> None:
    for name, shown in ((b"b\xe4d.txt", r"b\xe4d.txt"), (b"two\nlines", r"two\nlines")):
        path = os.fsencode(repo.path) + b"/" + name
        with open(path, "wb"):
            pass
        assert snapshot.of_working_tree(repo.path).untracked
        repo.git("add", "--all")
        with pytest.raises(InvalidRepository) as caught:
            snapshot.of_working_tree(repo.path)
        assert shown in caught.value.message
        assert caught.value.cure
        os.unlink(path)
        repo.git("add", "--all")


def test_f25_a_pipe_or_socket_in_place_of_a_file_is_refused(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo.path / "a.py").unlink()
    os.mkfifo(repo.path / "a.py")
    with pytest.raises(InvalidRepository, match=r"'a\.py' is tracked"):
        snapshot.of_working_tree(repo.path)
    (repo.path / "a.py").unlink()
    monkeypatch.chdir(repo.path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("a.py")
        with pytest.raises(InvalidRepository, match=r"'a\.py' is tracked"):
            snapshot.of_working_tree(repo.path)


def test_f25_a_folder_in_place_of_a_file_deletes_the_file(repo: Repo, tmp_path: Path) -> None:
    (repo.path / "a.py").unlink()
    (repo.path / "a.py").mkdir()
    taken = snapshot.of_working_tree(repo.path)
    assert tree_of(taken) == tree_on_disk(repo.path)
    (repo.path / "a.py/inside").write_bytes(b"inside\n")
    taken = snapshot.of_working_tree(repo.path, include_untracked=True)
    assert tree_of(taken) == tree_on_disk(repo.path)
    assert apply_to_clean_checkout(taken, repo, tmp_path / "clone") == tree_on_disk(repo.path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_f25_an_unreadable_file_is_named(repo: Repo) -> None:
    (repo.path / "a.py").chmod(0)
    with pytest.raises(InvalidRepository, match=r"'a\.py' cannot be read: Permission denied"):
        snapshot.of_working_tree(repo.path)


def test_f27_too_big_a_tree_names_its_biggest_files(repo: Repo) -> None:
    for number in range(7):
        with (repo.path / f"big{number}").open("wb") as file:
            file.truncate((200 + number) << 20)
    with pytest.raises(InvalidRepository) as caught:
        snapshot.of_working_tree(repo.path, include_untracked=True)
    assert "1.4 GiB" in caught.value.message
    assert "big6 (206.0 MiB), big5 (205.0 MiB)" in caught.value.message
    assert "big1" not in caught.value.message
    assert snapshot.of_working_tree(repo.path).manifest.entries


def test_f29_a_file_that_changes_between_hashing_and_comparing_is_refused(
    repo: Repo, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "edit").write_text("#!/bin/sh\ncat\necho x >>picture.bin\n")  # git runs this while it compares
    (tmp_path / "edit").chmod(0o755)
    repo.commit({".gitattributes": b"*.py filter=edit\n"})
    with config.open("a") as file:
        file.write(f'[filter "edit"]\n\tclean = {tmp_path}/edit\n')
    repo.write({"a.py": b"another length\n"})
    with pytest.raises(Conflict, match=r"'picture\.bin' changed while it was being captured"):
        snapshot.of_working_tree(repo.path)


def test_nothing_is_left_in_the_temporary_folder(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    repo.write({"a.py": b"edited\n", "new": b"new\n"})
    taken = snapshot.of_working_tree(repo.path, include_untracked=True)
    assert list(scratch.iterdir()) == []
    assert patch_of(taken) == patch_of(taken) != b""
