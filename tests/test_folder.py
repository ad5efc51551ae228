"""What is sent of a folder that is no repository: all that a run may need, and nothing that it must not have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from git_repos import Repo, isolate_git

from orchestrator.capture import patterns, snapshot
from orchestrator.capture.folder import Listing, look
from orchestrator.errors import InvalidRepository


@pytest.fixture(autouse=True)
def _config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate_git(monkeypatch, tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make(tmp_path / "project", "train.py", "src/a b.py", "src/[x].py", "ü/ä.txt")


def make(folder: Path, *names: str) -> Path:
    """A folder with these files, each holding its own name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def sent(listing: Listing) -> set[str]:
    """The files of a listing, which a snapshot of it has, too."""
    taken = snapshot.of_folder(listing)
    assert {entry.path for entry in taken.manifest.entries} == {os.fsdecode(path) for path in listing.files}
    return {entry.path for entry in taken.manifest.entries}


OURS = {"train.py", "src/a b.py", "src/[x].py", "ü/ä.txt"}


def test_all_files_are_sent_with_their_modes_and_links(project: Path) -> None:
    (project / "train.py").chmod(0o755)
    (project / "link").symlink_to("src/a b.py")
    (project / "away").symlink_to("/etc/hosts")
    (project / "empty").mkdir()
    os.mkfifo(project / "pipe")
    listing = look(project)
    assert sent(listing) == OURS | {"link", "away"}
    taken = snapshot.of_folder(listing)
    modes = {entry.path: entry.mode for entry in taken.manifest.entries}
    assert (modes["train.py"], modes["link"], modes["ü/ä.txt"]) == ("100755", "120000", "100644")
    for entry in taken.manifest.entries:
        with taken.open_blob(entry.digest) as file:
            assert len(file.read()) == entry.size
    assert (taken.code.repository, taken.code.commit, taken.code.dirty, taken.code.diff) == ("project", "", False, "")


def test_caches_environments_and_homes_are_not_sent_unless_asked_for(project: Path) -> None:
    caches = ("my env/pyvenv.cfg", "my env/lib/x.py", "cache/CACHEDIR.TAG", "cache/y", "conda/conda-meta/history")
    made = ("node_modules/z/i.js", "src/__pycache__/a.pyc", ".hg/store", "old-home/store/spell.db", "old-home/runs/1/x")
    make(project, *caches, *made, "home/config.toml", "home/runs/1/y")
    assert sent(look(project, without=[project / "home"])) == OURS
    asked = look(project, without=[project / "home"], ignore=("!my env/", "!/node_modules/", "*.txt"))
    assert sent(asked) == {*OURS, "my env/pyvenv.cfg", "my env/lib/x.py", "node_modules/z/i.js"} - {"ü/ä.txt"}


def test_rules_of_gitignore_hold_without_git_and_those_of_spellignore_win(project: Path) -> None:
    make(project, "data/big", "data/small", "src/x.log", "x.log", "keep.log")
    (project / ".gitignore").write_text("data/\n*.log\n!keep.log\n")
    (project / "src" / ".gitignore").write_text("!x.log\n")
    rules = {".gitignore", "src/.gitignore"}
    assert sent(look(project)) == OURS | rules | {"keep.log", "src/x.log"}
    text = "\ufeff# what the run needs\n!data/\nbig   \n/src/*.log\n\n"
    assert sent(look(project, ignore=patterns.lines_of(text))) == OURS | rules | {"keep.log", "data/small"}
    outside = project.parent / "ignored"  # the person's own rules, as in every repository
    outside.write_text("*.py\n")
    Repo(project.parent / "any").git("config", "--global", "core.excludesFile", str(outside))
    assert sent(look(project)) == {"ü/ä.txt", "keep.log", "src/x.log"} | rules


def test_files_of_secrets_are_left_out_and_named(project: Path) -> None:
    secret = {".env", "deploy/.env.production", "id_rsa", "key.pem", ".netrc", "x/aws-credentials.json"}
    make(project, *secret, ".env.example", "secrets.py", "deploy/hidden.env")
    (project / "deploy" / ".gitignore").write_text("hidden.env\n")
    others = OURS | {".env.example", "secrets.py", "deploy/.gitignore"}
    listing = look(project)
    assert (sent(listing), set(listing.secrets)) == (others, secret)
    listing = look(project, ignore=("!.env", "!*.pem"))
    assert (sent(listing), set(listing.secrets)) == (others | {".env", "key.pem"}, secret - {".env", "key.pem"})


def test_repositories_inside_give_their_files(project: Path) -> None:
    inner = Repo(project / "libs" / "inner")
    inner.stage({"a.py": b"a", "forced.log": b"f", ".gitignore": b"*.log\n"})
    inner.git("add", "--force", "forced.log")
    inner.write({"new.py": b"n", "x.log": b"x", "data/d": b"d"})
    files = {f"libs/inner/{name}" for name in (".gitignore", "a.py", "forced.log", "new.py", "data/d")}
    assert sent(look(project)) == OURS | files
    assert sent(look(project, ignore=("/libs/inner/data", "/data", "/new.py"))) == OURS | files - {"libs/inner/data/d"}
    assert sent(look(project, ignore=("libs/",))) == OURS


def test_a_repository_without_commits_is_sent_whole(tmp_path: Path) -> None:
    repo = Repo(make(tmp_path / "fresh", "a.py", "sub/b.py", "x.log", ".gitignore"))
    (repo.path / ".gitignore").write_text("*.log\n")
    repo.git("add", "a.py")
    (repo.path / "a.py").write_text("changed")
    listing = look(repo.path, b"sub", has_git=True)
    assert sent(listing) == {"a.py", "sub/b.py", ".gitignore"}
    assert snapshot.of_folder(listing).code.subdir == "sub"


def test_a_folder_that_is_too_big_or_unreadable_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (project / "huge").open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(InvalidRepository, match=r"The files of the folder hold 2\.0 GiB") as caught:
        snapshot.of_folder(look(project))
    assert "spellignore" in caught.value.cure
    monkeypatch.setattr("orchestrator.capture.folder._LONGEST_S", 0.0)
    with pytest.raises(InvalidRepository, match="cannot be listed within 0 s"):
        look(project)


@pytest.mark.parametrize("has_untracked", [False, True])
def test_spellignore_leaves_files_of_a_repository_out(tmp_path: Path, has_untracked: bool) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"a.py": b"a", "data/big": b"b", "docs/x.md": b"x"})
    repo.write({"new.py": b"n", "data/new": b"n"})
    taken = snapshot.of_working_tree(repo.path, include_untracked=has_untracked, ignore=("data/", "!data/small"))
    assert {entry.path for entry in taken.manifest.entries} == {"a.py", "docs/x.md"} | (
        {"new.py"} if has_untracked else set()
    )
    assert taken.warnings == ("Tracked files that .spellignore names are left out: data/big",)
    assert taken.untracked == (() if has_untracked else ("new.py",))
