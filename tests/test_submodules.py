"""Submodules and Git LFS files in snapshots: from this machine, or fetched."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from git_repos import Repo, isolate_git, tree_of, tree_on_disk

from orchestrator.capture import snapshot
from orchestrator.capture.git import Git
from orchestrator.capture.gitmodules import _absolute
from orchestrator.capture.submodules import with_submodules
from orchestrator.errors import SpellError
from orchestrator.spec.run import Submodule


@pytest.fixture(autouse=True)
def _config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate_git(monkeypatch, tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository with a submodule that has one itself, by a relative URL; both initialised."""
    inner, library = Repo(tmp_path / "inner"), Repo(tmp_path / "library")
    inner.commit({"deep.txt": b"deep\n"})
    library.commit({"lib.py": b"lib\n", "same.txt": b"same\n"})
    library.git("submodule", "--quiet", "add", "../inner", "in side")
    library.commit()
    made = Repo(tmp_path / "project")
    made.commit({"a.py": b"a\n", "same.txt": b"same\n"})
    made.git("submodule", "--quiet", "add", "--name", "the library", str(library.path), "libs/library")
    made.git("submodule", "--quiet", "update", "--init", "--recursive")
    made.commit()
    return made


def recorded(repo: Repo) -> tuple[Submodule, ...]:
    """What a snapshot says of the submodules of the fixture."""
    outer = Repo(repo.path / "libs" / "library").git("rev-parse", "HEAD")
    inner = Repo(repo.path / "libs" / "library" / "in side").git("rev-parse", "HEAD")
    folder = repo.path.parent
    return (
        Submodule("libs/library", str(folder / "library"), outer),
        Submodule("libs/library/in side", str(folder / "inner"), inner),
    )


def test_submodules_that_are_here_are_recorded(repo: Repo) -> None:
    taken = snapshot.of_working_tree(repo.path)
    assert tree_of(taken) == tree_on_disk(repo.path)
    assert (taken.code.submodules, taken.modules) == (recorded(repo), ())


@pytest.mark.parametrize("where", ["a tree without them", "a commit", "a commit whose submodules are here", "a URL"])
def test_submodules_that_are_not_here_are_fetched(repo: Repo, cache: Path, where: str) -> None:
    expected, wanted = tree_on_disk(repo.path), recorded(repo)
    if where != "a commit whose submodules are here":
        repo.git("submodule", "--quiet", "deinit", "--force", "--all")
        shutil.rmtree(repo.path / ".git" / "modules")
    if where == "a tree without them":
        taken = snapshot.of_working_tree(repo.path)
    elif where == "a URL":
        taken = snapshot.of_url(f"file://{repo.path}", "main", cache)
    else:
        taken = snapshot.of_commit(repo.path, "HEAD")
    why = (
        " is not initialised and is left out."
        if "tree" in where
        else " is left out, because its files are not part of the commit."
    )
    assert len(taken.warnings) == 1 and taken.warnings[0].startswith(f"Submodule 'libs/library'{why} To include it: ")
    whole = with_submodules(taken, cache)
    assert tree_of(whole) == expected
    assert (whole.code.submodules, whole.warnings, whole.modules) == (wanted, (), ())
    for entry in whole.manifest.entries:
        with whole.open_blob(entry.digest) as file:
            assert hashlib.sha256(file.read()).hexdigest() == entry.digest
    assert whole.code.dirty is False


def test_a_submodule_that_cannot_be_fetched_is_named(repo: Repo, cache: Path) -> None:
    repo.git("submodule", "--quiet", "deinit", "--force", "--all")
    shutil.rmtree(repo.path / ".git" / "modules")
    shutil.rmtree(repo.path.parent / "library")
    with pytest.raises(SpellError, match="Submodule 'libs/library': Could not fetch"):
        with_submodules(snapshot.of_working_tree(repo.path), cache)


@pytest.mark.parametrize(
    ("parent", "url", "absolute"),
    [
        ("https://example.org/a/b.git", "../c.git", "https://example.org/a/c.git"),
        ("https://example.org/a/b", "../../x/c", "https://example.org/x/c"),
        ("git@example.org:a/b.git", "../c.git", "git@example.org:a/c.git"),
        ("/srv/a/b", "./c", "/srv/a/b/c"),
        ("/srv/a", "https://example.org/c", "https://example.org/c"),
    ],
)
def test_relative_urls(tmp_path: Path, parent: str, url: str, absolute: str) -> None:
    assert _absolute(url, Git(tmp_path), parent) == absolute


def test_a_commit_has_the_content_of_lfs_files_that_are_here(repo: Repo) -> None:
    here, absent = b"the weights" * 1000, hashlib.sha256(b"elsewhere").hexdigest()
    digest = hashlib.sha256(here).hexdigest()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"
    files = {
        "here.bin": pointer.format(digest, len(here)),
        "absent.bin": pointer.format(absent, 9),
        "cut.bin": pointer.format(digest, 5),
    }
    repo.commit({name: text.encode() for name, text in files.items()})
    place = repo.path / ".git" / "lfs" / "objects" / digest[:2] / digest[2:4] / digest
    place.parent.mkdir(parents=True)
    place.write_bytes(here)
    taken = snapshot.of_commit(repo.path, "HEAD")
    found = {entry.path: entry for entry in taken.manifest.entries}
    assert (found["here.bin"].digest, found["here.bin"].size) == (digest, len(here))
    with taken.open_blob(digest) as file:
        assert file.read() == here
    assert [text for text in taken.warnings if "LFS" in text] == [
        "2 files are Git LFS pointers without their content: absent.bin, cut.bin. Fetch it: git lfs pull"
    ]
