"""Git itself: missing, refusing, broken, or with words that a person can act on."""

from __future__ import annotations

from pathlib import Path

import pytest
from git_repos import Repo, isolate_git

from orchestrator.capture import snapshot
from orchestrator.capture.git import CONVERSIONS_COMMAND, Git, Objects, Result, converts, locate
from orchestrator.errors import InvalidRepository


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return isolate_git(monkeypatch, tmp_path)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "project")
    made.commit({"a": b"a\n", "deep/b": b"b\n"})
    return made


def test_a_machine_without_git_says_so(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InvalidRepository, match="git cannot be run") as caught:
        locate(repo.path)
    assert caught.value.cure


def test_a_directory_that_is_gone_is_not_taken_for_a_missing_git(tmp_path: Path) -> None:
    with pytest.raises(InvalidRepository, match="is gone"):
        locate(tmp_path / "gone")


def test_a_repository_of_somebody_else_is_refused_with_gits_advice(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(InvalidRepository, match="dubious ownership") as caught:
        locate(repo.path)
    assert caught.value.cure.startswith("git config --global --add safe.directory ")


def test_a_broken_link_to_a_repository_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/.git").write_text("gitdir: /nowhere\n")
    with pytest.raises(InvalidRepository, match="not a git repository: /nowhere"):
        locate(tmp_path / "x")


def test_the_git_folder_itself_is_no_working_tree(repo: Repo) -> None:
    with pytest.raises(InvalidRepository, match="work tree"):
        locate(repo.path / ".git")


def test_the_words_of_another_language_are_understood(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    assert locate(tmp_path) is None


def test_a_place_has_root_subdir_and_git_folder(repo: Repo) -> None:
    assert locate(repo.path / "deep") == (repo.path, b"deep", repo.path / ".git")


@pytest.mark.parametrize(
    ("err", "reason"),
    [
        (b"warning: x\nfatal: no such thing\n", "no such thing"),
        (
            b"git@host: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\nPlease make sure",
            "git@host: Permission denied (publickey): Could not read from remote repository.",
        ),
        (b"sh: something else\n", "sh: something else"),
        (b"", "git ended with exit code 128"),
    ],
)
def test_the_reason_is_gits_last_error(err: bytes, reason: str) -> None:
    assert Result(128, b"", err).reason == reason


def test_objects_are_read_one_many_or_not_at_all(repo: Repo) -> None:
    repo.commit({f"f{number}": b"%d\n" % number * number for number in range(200)})
    oids = [repo.git("rev-parse", f"HEAD:f{number}") for number in range(200)]
    objects = Objects(Git(repo.path))
    assert list(objects.read_many(oids)) == [b"%d\n" % number * number for number in range(200)]
    assert objects.read(oids[7]) == b"7\n" * 7
    objects.close()
    assert b"".join(objects.stream(oids[199])) == objects.read(oids[199])
    with pytest.raises(InvalidRepository, match="lacks the object"):
        objects.read("0" * 40)
    with pytest.raises(InvalidRepository):
        b"".join(objects.stream("0" * 40))


@pytest.mark.parametrize(("line", "does"), [("", False), ("autocrlf = input", True), ("attributesFile = x", True)])
def test_only_a_person_whose_settings_convert_line_endings_is_told_so(
    repo: Repo, config: Path, line: str, *, does: bool
) -> None:
    with config.open("a") as file:
        file.write(f"[core]\n\t{line}\n")
    assert converts(*Git(repo.path).gather(as_checked_out=[CONVERSIONS_COMMAND])) is does


def test_git_is_asked_six_times_for_the_code_of_a_simple_repository(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("GIT_TRACE2_EVENT", str(trace))
    (repo.path / "a").write_bytes(b"edited\n")
    assert snapshot.of_working_tree(repo.path).code.dirty
    assert trace.read_text().count('"event":"start"') == 6  # each takes longer to start than to do what it is asked
