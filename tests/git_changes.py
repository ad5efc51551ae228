"""What people do to a working tree before they cast, one function each; for a repository as `START` makes it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from git_repos import Repo

START: dict[str, bytes] = {
    "a.py": b"print('a')\n\n" * 9,
    "old/name.txt": b"".join(b"line %d\n" % number for number in range(40)),
    "gone.txt": b"gone\n",
    "run.sh": b"#!/bin/sh\n",
    "picture.bin": bytes(range(256)) * 20,
    "crlf.txt": b"one\r\ntwo\r\n",
    "empty": b"",
    ".gitignore": b"*.log\n",
}

Change = Callable[[Repo], None]


def _symlinks(repo: Repo) -> None:
    (repo.path / "broken").symlink_to("nowhere/at all")
    (repo.path / "absolute").symlink_to("/etc/hostname")
    (repo.path / "folder-link").symlink_to("old")
    repo.git("add", "--all")


def _file_and_link_swap(repo: Repo) -> None:
    (repo.path / "a.py").unlink()
    (repo.path / "a.py").symlink_to("run.sh")


def _folder_becomes_file(repo: Repo) -> None:
    (repo.path / "old/name.txt").unlink()
    (repo.path / "old").rmdir()
    repo.write({"old": b"a file now\n"})
    repo.git("add", "--all")


def _rename_staged(repo: Repo) -> None:
    repo.git("mv", "old/name.txt", "new name.txt")
    repo.git("mv", "picture.bin", "image.bin")


def _rename_and_edit(repo: Repo) -> None:
    repo.git("mv", "old/name.txt", "new.txt")
    repo.write({"new.txt": b"".join(b"line %d\n" % number for number in range(39)) + b"edited\n"})


def _conflict(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "other")
    repo.commit({"a.py": b"theirs\n", "gone.txt": b"edited there, deleted here\n"})
    repo.git("checkout", "--quiet", "main")
    repo.git("rm", "--quiet", "gone.txt")
    repo.commit({"a.py": b"ours\n"})
    subprocess.run(["git", "merge", "other"], cwd=repo.path, capture_output=True, check=False)
    assert repo.git("ls-files", "--unmerged").count("gone.txt") == 2
    assert (repo.path / "gone.txt").exists()


def _hidden(flag: str) -> Change:
    def change(repo: Repo) -> None:
        repo.git("update-index", flag, "a.py", "run.sh")
        repo.write({"a.py": b"edited behind git's back\n"})

    return change


def _staged_then_edited(repo: Repo) -> None:
    repo.write({"a.py": b"staged\n"})
    repo.git("add", "a.py")
    repo.write({"a.py": b"edited after staging\n"})


def _same_size_same_moment(repo: Repo) -> None:
    """What git calls racily clean: only by its own age does the index know that it cannot trust size and time."""
    repo.git("config", "core.trustctime", "false")
    repo.write({"a.py": b"1111\n"})
    os.utime(repo.path / "a.py", (1e9, 1e9))
    repo.git("add", "a.py")
    repo.git("commit", "--quiet", "--message", "x")
    repo.write({"a.py": b"2222\n"})
    os.utime(repo.path / "a.py", (1e9, 1e9))
    os.utime(repo.path / ".git/index", (1e9, 1e9))


def _split_index(repo: Repo) -> None:
    repo.git("update-index", "--split-index")
    repo.write({"a.py": b"edited\n"})


def _staged_with_line_endings(repo: Repo) -> None:
    repo.git("config", "core.autocrlf", "input")
    repo.stage({"new.txt": b"one\r\ntwo\r\n"})


def _attributes(repo: Repo) -> None:
    repo.commit({".gitattributes": b"*.bat text eol=crlf\n", "do.bat": b"echo 1\r\necho 2\r\n"})
    repo.write({"do.bat": b"echo 1\r\necho 3\r\n"})


def _intent_to_add(repo: Repo) -> None:
    repo.write({"new.py": b"new\n"})
    repo.git("add", "--intent-to-add", "new.py")


def _unpushed_commit(repo: Repo) -> None:
    repo.commit({"a.py": b"never pushed\n"})


def _run(*args: str) -> Change:
    def change(repo: Repo) -> None:
        repo.git(*args)

    return change


def _diff_attributes(repo: Repo) -> None:
    """A driver that the repository names and the person's settings define."""
    repo.commit({".gitattributes": b"*.py diff=evil\n*.txt diff=evil\n"})
    repo.write({"a.py": b"edited\n"})


def _moved_lines(repo: Repo) -> None:
    """Lines for which the ways to compare do not agree."""
    repo.commit({"m.c": b"void a()\n{\n  x += 1\n}\n\nvoid b()\n{\n  x += 2\n}\n"})
    repo.write({"m.c": b"void c()\n{\n  y += 1\n}\n\nvoid b()\n{\n  x += 2\n}\n\nvoid a()\n{\n  x += 1\n}\n"})


CHANGES: dict[str, Change] = {
    "nothing": lambda repo: None,
    "uncommitted": lambda repo: repo.write({"a.py": b"print('a')\n\n" * 9 + b"print('b')\n"}),
    "staged": lambda repo: repo.stage({"a.py": b"b\n"}),
    "staged_then_edited": _staged_then_edited,
    "staged_only_new": lambda repo: repo.stage({"n/new.py": b"new"}),
    "intent_to_add": _intent_to_add,
    "deleted": lambda repo: (repo.path / "gone.txt").unlink(),
    "deleted_staged": _run("rm", "--quiet", "gone.txt"),
    "deleted_folder": _run("rm", "--quiet", "-r", "old"),
    "renamed": _rename_staged,
    "renamed_and_edited": _rename_and_edit,
    "executable": lambda repo: (repo.path / "run.sh").chmod(0o755),
    "binary": lambda repo: repo.write({"picture.bin": bytes(range(255, -1, -1)) * 30}),
    "emptied": lambda repo: repo.write({"a.py": b""}),
    "empty_new": lambda repo: repo.stage({"void": b""}),
    "unicode": lambda repo: repo.stage({'naïve/日本 \t"語.txt': b"\xff\n"}),
    "leading_dash": lambda repo: repo.stage({"-n": b"x", ":(top)y": b"y"}),
    "crlf": lambda repo: repo.write({"crlf.txt": b"one\r\n2\r\n"}),
    "crlf_staged_as_lf": _staged_with_line_endings,
    "attributes": _attributes,
    "diff_attributes": _diff_attributes,
    "moved_lines": _moved_lines,
    "no_last_newline": lambda repo: repo.write({"a.py": b"print('a')"}),
    "symlinks": _symlinks,
    "file_to_link": _file_and_link_swap,
    "folder_to_file": _folder_becomes_file,
    "unpushed_commit": _unpushed_commit,
    "merge_conflict": _conflict,
    "assume_unchanged": _hidden("--assume-unchanged"),
    "skip_worktree": _hidden("--skip-worktree"),
    "racily_clean": _same_size_same_moment,
    "split_index": _split_index,
}
