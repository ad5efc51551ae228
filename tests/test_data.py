"""F27, F28, F30, F38 and F40 end to end: repositories and outputs that are big, many, odd or incomplete."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell, git, wait_for
from test_disk_full import MIB, Disk, small_disk

from orchestrator.content.files import sha256
from orchestrator.content.manifest import make
from orchestrator.data import outputs
from orchestrator.data.outputs import Workspace


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell]) -> Spell:
    return make_shared("data")


def commit(repo: Path) -> None:
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "More")


# -- F27 --------------------------------------------------------------------------------------------------------------


def test_f27_a_big_history_is_not_sent(shared: Spell, repo: Path) -> None:
    (repo / "history").write_bytes(os.urandom(30 * MIB))
    commit(repo)
    (repo / "history").unlink()
    commit(repo)
    assert sum(path.stat().st_size for path in (repo / ".git").rglob("*")) > 30 * MIB
    before = set(shared.home.blobs.rglob("*"))
    assert shared("run", "-f", "ls", cwd=repo).code == 0
    sent = set(shared.home.blobs.rglob("*")) - before
    assert sum(path.stat().st_size for path in sent if path.is_file()) < MIB


def test_f27_many_files_in_few_requests_and_only_once(shared: Spell, repo: Path) -> None:
    for number in range(3000):
        (repo / f"f{number % 30}").mkdir(exist_ok=True)
        (repo / f"f{number % 30}" / f"{number}.txt").write_text(f"number {number}\n")
    (repo / "big").write_bytes(os.urandom(3 * MIB))
    commit(repo)
    done = shared("run", "-f", "find f* -type f | wc -l; cat f7/7.txt; wc -c < big", cwd=repo)
    assert shared.log(done.number).split() == [b"3000", b"number", b"7", str(3 * MIB).encode()]
    assert not list(shared.home.blobs.glob("incoming-*"))
    here = {path: path.stat().st_ino for path in shared.home.blobs.rglob("*") if path.is_file()}
    (repo / "f7" / "7.txt").write_text("changed\n")
    again = shared("run", "-f", "cat f7/7.txt", cwd=repo)
    assert shared.log(again.number) == b"changed\n"
    now = {path: path.stat().st_ino for path in shared.home.blobs.rglob("*") if path.is_file()}
    assert {path: inode for path, inode in now.items() if path in here} == here
    assert len(now) - len(here) == 2, "the file, and the difference to the commit"
    (repo / "big").write_bytes(os.urandom(3 * MIB))
    third = shared("run", "-f", "sha256sum < big", cwd=repo)
    assert shared.log(third.number).split()[0].decode() == sha256(repo / "big")
    diff = shared.client.runs.get(str(third.number)).spec["code"]["diff"]
    assert len(shared.client.code.blob(diff)) > 3 * MIB, "bigger than what a pack takes"


# -- F28 --------------------------------------------------------------------------------------------------------------


def test_f28_an_ignored_file_that_the_command_needs_is_told(shared: Spell, repo: Path) -> None:
    (repo / ".gitignore").write_text("*.csv\ndata/\n")
    (repo / "data").mkdir()
    (repo / "sub").mkdir()
    for name in ("a.csv", "data/x", "sub/b.csv", "sub/code.py", "own.csv"):
        (repo / name).write_text("x")
    commit(repo)
    done = shared("run", "-f", "cat --data=a.csv data/x >/dev/null; cat hello.py sub/code.py; true", cwd=repo)
    assert done.code == 0
    told = [line for line in done.err.splitlines() if "git ignores it" in line]
    assert len(told) == 2, done.err
    assert "WARNING: 'a.csv' is in the command, but git ignores it" in told[0]
    assert "'data/x'" in told[1] and "spell upload data/x" in done.err
    done = shared("run", "-f", "cat b.csv code.py || true", cwd=repo / "sub")
    assert "'b.csv' is in the command" in done.err and "code.py'" not in done.err
    source = shared.run("echo mounted > own.csv").number
    done = shared(
        "run", "-f", "-m", f"runs/{source}/own.csv", "cat own.csv /etc/hostname . .. 'x' \"own.csv\"", cwd=repo
    )
    assert "git ignores" not in done.err


def test_f28_git_is_said_to_ignore_only_what_it_ignores(shared: Spell, repo: Path, tmp_path: Path) -> None:
    (repo / ".gitignore").write_text(".env\n*.csv\n")
    for name in ("real/in", "empty/x", "other/y"):
        (repo / name).parent.mkdir()
        (repo / name).write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "far").write_text("far")
    (repo / "near").symlink_to("real")
    (repo / "away").symlink_to(tmp_path / "outside")
    commit(repo)
    (repo / "empty" / "x").unlink()
    (repo / ".env").write_text("TOKEN=x")
    (repo / "other" / "data.csv").write_text("x")
    git(repo, "-c", "protocol.file.allow=always", "clone", "-q", str(repo), "inner")
    git(repo, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repo), "sub")
    git(repo, "commit", "-qm", "Submodule")
    git(repo, "submodule", "--quiet", "deinit", "-f", "sub")
    words = "cat near near/in away away/far .env sub sub/x inner/hello.py empty other other/data.csv hello.py || true"
    done = shared("run", "-f", words, cwd=repo)
    told = {line.split("'")[1]: line for line in done.err.splitlines() if "is in the command, but" in line}
    assert set(told) == {"away/far", ".env", "empty", "other/data.csv"}, done.err
    ignored = {name for name, line in told.items() if "git ignores it" in line}
    assert ignored == {".env", "other/data.csv"}
    assert "behind the link 'away'" in told["away/far"] and "empty folders" in told["empty"]
    assert "spell secret set" in done.err and "spell upload .env" not in done.err
    assert done.err.count("'sub' is not initialised") == done.err.count("'inner/' is a git repository") == 1


# -- F30 --------------------------------------------------------------------------------------------------------------


def test_f30_of_a_url_whose_branch_moved_the_new_commit_runs(shared: Spell, repo: Path, tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    url = f"file://{repo}"
    first = shared("run", "-f", "--github-url", url, "--github-ref", "main", "python hello.py", env=env)
    old = git(repo, "rev-parse", "HEAD").strip()
    (repo / "hello.py").write_text("print('moved')\n")
    git(repo, "commit", "-qam", "Move")
    git(repo, "update-ref", "refs/pull/1/head", old)
    (repo / "hello.py").write_text("print('amended')\n")
    git(repo, "commit", "-qa", "--amend", "-m", "Forced")
    second = shared("run", "-f", "--github-url", url, "--github-ref", "main", "python hello.py", env=env)
    pull = shared("run", "-f", "--github-url", url, "--github-ref", "refs/pull/1/head", "python hello.py", env=env)
    said = [shared.log(done.number) for done in (first, second, pull)]
    assert said == [b"hello\n", b"amended\n", b"hello\n"]


# -- F38 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path):
    with small_disk(tmp_path / "disk") as made:
        yield made


def test_f38_while_an_upload_comes_in(disk: Disk, make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    spell = make_spell(root=disk.place / "home")
    data = tmp_path / "set"
    data.mkdir()
    for number in range(40):
        (data / f"{number}").write_bytes(os.urandom(MIB // 2))
    (data / "big").write_bytes(os.urandom(10 * MIB))
    assert spell("ls").code == 0
    server = spell.server_pid
    disk.fill(8 * MIB)
    done = spell("upload", str(data))
    assert done.code == 1
    assert "ERROR: There is no room for 'set'" in done.err, done
    assert os.listdir(spell.home.uploads) == []
    disk.make_room()
    disk.fill(33 * MIB)
    begun = spell.popen("upload", str(data))  # enough now, and filled while it comes
    wait_for(lambda: begun.poll() is not None or any((spell.home.incoming / "set" / "trees").glob("*/*")), "some came")
    disk.fill()
    _, err = begun.communicate(timeout=60)
    assert begun.returncode == 0 or b"The disk is full" in err or b"There is no room for 'set'" in err, err
    disk.make_room()
    assert spell("upload", str(data)).code == 0
    assert {path.name: path.read_bytes() for path in (spell.home.uploads / "set").iterdir()} == {
        path.name: path.read_bytes() for path in data.iterdir()
    }
    assert spell.server_pid == server, "the server stayed up"


# -- F40 --------------------------------------------------------------------------------------------------------------


def workspace(root: Path) -> Workspace:
    return Workspace(root, make([]), frozenset(), ())


def test_f40_a_huge_tree_is_saved_in_time_that_only_its_files_cost(tmp_path: Path) -> None:
    code = tmp_path / "code"
    for folder in range(40):
        (code / str(folder)).mkdir(parents=True)
        for number in range(500):
            (code / str(folder) / str(number)).touch()
    with (code / "sparse").open("wb") as file:
        file.truncate(50 << 30)
    os.link(code / "0" / "0", tmp_path / "elsewhere")
    os.mkfifo(code / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(os.path.relpath(code / "sock"))
    listening.close()
    started = time.monotonic()
    found = outputs.save(1, workspace(code), tmp_path / "staging", tmp_path / "out")
    assert time.monotonic() - started < 60
    kept = {item.path: item for item in found if item.mode}
    assert len(kept) == 40 * 500 + 1
    assert {item.path: item.note for item in found if not item.mode} == {
        "pipe": "a named pipe, not a file",
        "sock": "a socket, not a file",
    }
    assert kept["sparse"].size == 50 << 30
    assert (tmp_path / "out" / "sparse").stat().st_blocks * 512 < MIB, "its holes stay holes"
    (tmp_path / "elsewhere").write_text("changed")
    assert (tmp_path / "out" / "0" / "0").read_text() == "", "no other name of it can change it"


def test_f40_a_save_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    code, staging = tmp_path / "code", tmp_path / "staging"
    (code / "d").mkdir(parents=True)
    (staging / "d").mkdir(parents=True)
    for number in range(10):
        where = staging if number % 2 else code  # a part of them had been moved
        (where / "d" / str(number)).write_text(str(number))
    found = outputs.save(1, workspace(code), staging, tmp_path / "out")
    assert sorted(item.path for item in found) == [f"d/{number}" for number in range(10)]
    assert [(tmp_path / "out" / "d" / str(number)).read_text() for number in range(10)] == list("0123456789")


def test_f40_what_vanishes_while_it_is_saved_is_no_failure(shared: Spell) -> None:
    command = "mkdir d; for i in $(seq 200); do echo $i > d/$i; done; echo kept > kept; rm -r d/1?? & true"
    run = shared.run(command)
    assert run.state == "complete"
    assert (shared.home.run_dir(run.number) / "kept").read_text() == "kept\n"
