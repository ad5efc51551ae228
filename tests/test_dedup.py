"""Identical outputs share their bytes on the disk, and each stays whole whatever becomes of the other."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell, wait_for
from servers import python

from orchestrator.data.dedup import Dedup
from orchestrator.home import Home
from orchestrator.records.files import ArtifactRecord

MIB = 1 << 20
PERSON = ("unshare", "--user", "--map-user=4242", "--map-group=4242", "--")


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Spell], tmp_path_factory: pytest.TempPathFactory) -> Spell:
    """A home that the tests of this module share, where identical files can only share as names of one file."""
    folder = tmp_path_factory.mktemp("clones")
    (folder / "one").write_bytes(bytes(8192))
    cloning = ["cp", "--reflink=always", str(folder / "one"), str(folder / "two")]
    if not subprocess.run(cloning, check=False, capture_output=True).returncode:
        pytest.skip("this file system shares extents, which no number tells")
    return make_shared("dedup")


def left(spell: Spell, command: str, path: str = "data") -> Path:
    """An output of a new run, when all of them have their hashes."""
    run = spell.run(command)
    assert run.state == "complete", run.message

    def is_hashed() -> bool:
        return all(item.sha256 for item in spell.client.runs.artifacts(str(run.number)) if not item.note)

    wait_for(is_hashed, f"hashes of run {run.number}")
    return spell.home.run_dir(run.number) / path


def text(word: str, size: int = MIB) -> str:
    """A command that leaves a file of this size, which is the same for the same word."""
    return f"yes {word} | head -c {size} > data"


def content(word: str, size: int = MIB) -> bytes:
    line = f"{word}\n".encode()
    return (line * (size // len(line) + 1))[:size]


def apart(path: Path) -> None:
    """Give an output a file of its own again."""
    path.parent.chmod(0o755)
    shutil.copy2(path, path.with_name("beside"))
    path.with_name("beside").rename(path)
    path.parent.chmod(0o555)


def execute(spell: Spell, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(spell.home.database, timeout=30)) as store, store:
        store.execute(statement)


def is_clear(home: Home) -> bool:
    return not list(home.dedup.iterdir())


def artifact(spell: Spell, path: Path) -> ArtifactRecord:
    (found,) = [item for item in spell.client.runs.artifacts(path.parent.name) if item.path == path.name]
    return found


def test_f40_identical_outputs_of_two_runs_share_their_bytes(shared: Spell) -> None:
    one = left(shared, text("same"))
    moment = one.stat().st_mtime_ns
    two, three = (
        left(shared, f"{text('same')}; cp data copy"),
        left(shared, f"mkdir d; {text('same')}; mv data d", "d/data"),
    )
    names = [one, two, two.with_name("copy"), three]
    assert len({path.stat().st_ino for path in names}) == 1
    assert two.stat().st_mtime_ns == moment, "one file has one time: the older's"
    assert {path.read_bytes() for path in names} == {content("same")}
    for path in names:
        assert stat.S_IMODE(path.stat().st_mode) == 0o444 and stat.S_IMODE(path.parent.stat().st_mode) == 0o555
    assert shared("verify", *(path.parent.name for path in names[:2])).code == 0
    assert is_clear(shared.home)


def test_what_is_not_shared(shared: Spell) -> None:
    one = left(shared, text("plain"))
    assert left(shared, f"{text('plain')}; chmod +x data").stat().st_ino != one.stat().st_ino, "another mode"
    assert left(shared, text("other")).stat().st_ino != one.stat().st_ino, "other bytes"
    small = left(shared, text("small", 4095))
    assert left(shared, text("small", 4095)).stat().st_ino != small.stat().st_ino, "no block is saved"
    link = left(shared, f"{text('linked', 9000)}; ln -s data link", "link")
    assert link.is_symlink()
    assert left(shared, text("linked", 9000)).samefile(link), "what a link leads to is"


def test_a_file_that_was_changed_is_not_spread(shared: Spell) -> None:
    one = left(shared, text("changed"))
    before = one.stat()
    one.chmod(0o644)
    with one.open("r+b") as file:
        file.seek(MIB // 2)
        file.write(b"!")
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    one.chmod(0o444)  # nothing but its bytes tells
    two = left(shared, text("changed"))
    assert two.read_bytes() == content("changed") != one.read_bytes()
    assert (shared("verify", one.parent.name).code, shared("verify", two.parent.name).code) == (1, 0)
    three = left(shared, text("changed"))
    assert three.samefile(two), "the next one finds the whole one"


@pytest.mark.parametrize("what", ["cut", "writable", "gone", "a link"])
def test_what_is_not_as_it_was_sealed_is_left_alone(shared: Spell, what: str) -> None:
    word = what.replace(" ", "")
    one = left(shared, text(word))
    one.parent.chmod(0o755)
    if what == "cut":
        os.truncate(one, 5000)
    elif what == "writable":
        one.chmod(0o644)
    else:
        one.rename(one.with_name("elsewhere"))
    if what == "a link":
        one.symlink_to("elsewhere")
    two = left(shared, text(word))
    assert two.read_bytes() == content(word) and two.stat().st_nlink == 1
    assert is_clear(shared.home)


@pytest.mark.parametrize("who", ["root", "person"])
def test_gc_of_one_leaves_the_other_whole(make_spell: Callable[..., Spell], who: str) -> None:
    """A person has no right to remove what lies in a sealed folder, and must take it without touching the files."""
    if who == "person" and subprocess.run([*PERSON, "true"], check=False, capture_output=True).returncode:
        pytest.skip("nobody can become another user here: no user namespaces")
    spell = make_spell(prefix=PERSON if who == "person" else ())
    assert spell("server", "start").code == 0
    one, two = left(spell, f"{text('same')}; mkdir -p d/e; cp data d/e"), left(spell, text("same"))
    assert one.samefile(two)
    execute(spell, "UPDATE runs SET archived = 1, created_at = 1, ended_at = 1 WHERE number = 1")
    assert spell("gc").code == 0
    assert not one.parent.exists() and not list(spell.home.removed.iterdir())
    assert two.read_bytes() == content("same")
    assert stat.S_IMODE(two.stat().st_mode) == 0o444, "sealed still"
    assert two.stat().st_nlink == 1
    assert spell("verify", "2").code == 0


def test_outputs_that_are_being_removed_are_left_alone(shared: Spell) -> None:
    one, two = left(shared, text("removed")), left(shared, text("removed"))
    apart(two)

    def remove(path: Path, when: str) -> None:
        execute(shared, f"UPDATE runs SET outputs_removed_at = {when} WHERE number = {path.parent.name}")

    with shared.opened_store() as store:
        dedup, new = Dedup(store, shared.home, lambda: False), artifact(shared, two)
        cancelled = Dedup(store, shared.home, lambda: True)
        assert not cancelled.share(new, str(new.sha256)), "the server ends"
        for path in (one, two):
            remove(path, "1")
            assert not dedup.share(new, str(new.sha256)) and two.stat().st_nlink == 1
            remove(path, "NULL")
        assert dedup.share(new, str(new.sha256)) and two.samefile(one)
    assert is_clear(shared.home)


def test_a_file_that_changes_meanwhile_is_not_replaced(shared: Spell) -> None:
    _, two = left(shared, text("meanwhile")), left(shared, text("meanwhile"))
    apart(two)
    asked = 0

    def write() -> bool:
        """Asked while the files are compared: now the new one is another file."""
        nonlocal asked
        asked += 1
        if asked == 2:
            apart(two)
        return False

    with shared.opened_store() as store:
        new = artifact(shared, two)
        assert not Dedup(store, shared.home, write).share(new, str(new.sha256))
    assert asked >= 2 and two.stat().st_nlink == 1
    assert is_clear(shared.home)


SHARE = """
import os, signal, sys
from pathlib import Path
from orchestrator.home import Home
from orchestrator.data.dedup import Dedup
from orchestrator.store import Store
from orchestrator.store.database import Database
home, left = Home(Path(sys.argv[1])), int(sys.argv[3])
store = Store(Database(home.database))
(new,) = store.artifacts(int(sys.argv[2]))
dedup = Dedup(store, home, lambda: False)

def die(event, _words):
    global left
    if event in ("os.link", "os.symlink", "os.chmod", "os.rename", "os.remove"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
dedup.share(new, new.sha256)
"""


def test_f40_killed_at_any_moment_both_are_whole(shared: Spell) -> None:
    """Killed before each thing that it does to the disk; once a real server starts after that, where a folder was open."""
    one, two = left(shared, text("killed")), left(shared, text("killed"))
    cut_off = left_open = 0
    while True:
        if one.samefile(two):
            apart(two)
        process = python(SHARE, str(shared.home.root), two.parent.name, str(cut_off + 1))
        process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        cut_off += 1
        is_open = stat.S_IMODE(two.parent.stat().st_mode) != 0o555
        left_open += is_open
        assert one.read_bytes() == two.read_bytes() == content("killed")
        assert [path.name for path in two.parent.iterdir()] == ["data"], "nothing else is seen among the outputs"
        if is_open and left_open == 1:
            shared.kill_server()
            assert shared("verify", one.parent.name, two.parent.name).code == 0
        else:
            with shared.opened_store() as store:
                Dedup(store, shared.home, lambda: False).finish()
        wait_for(lambda: is_clear(shared.home), "all is cleared up")
        assert stat.S_IMODE(two.parent.stat().st_mode) == 0o555
    assert one.samefile(two) and is_clear(shared.home)
    assert cut_off >= 6 and left_open >= 2


def test_a_server_that_is_killed_shares_later(shared: Spell) -> None:
    """Its hash is recorded when it was shared: as long as there is none, the next server does it."""
    one, two = left(shared, text("later")), left(shared, text("later"))
    apart(two)
    shared.kill_server()
    execute(shared, f"UPDATE artifacts SET sha256 = NULL WHERE run = {two.parent.name}")
    assert shared("verify", one.parent.name, two.parent.name).code == 0
    assert one.samefile(two)
