"""F38: the disk of the home becomes full, in each phase of a run. The home lies on a small disk of its own.

Each test fills the disk, sees what fails and how, makes room, and sees that it goes on; the store is whole in the end.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import DEADLINE_S, Spell, bearing, git, wait_for
from launches import make_launch
from wheels import make_wheel

from orchestrator.content.files import remove_tree
from orchestrator.errors import DiskFull
from orchestrator.executors.fake import FakeExecutor
from orchestrator.executors.process import ProcessExecutor
from orchestrator.home import Home
from orchestrator.records.runs import RunRecord
from orchestrator.server.assembly import Assembly
from orchestrator.store.database import Database

MIB = 1 << 20
DISK_BYTES = 64 * MIB
CONFIG = "grace_s = 0.4\nsample_interval_s = 0.2\n[machine_types.cpu]\ncpus = 0.05\n"


@dataclass
class Disk:
    """A small file system."""

    place: Path

    @property
    def filler(self) -> Path:
        return self.place / "filler"

    @property
    def free_bytes(self) -> int:
        disk = os.statvfs(self.place)
        return disk.f_bavail * disk.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Leave only so much room."""
        fd = os.open(self.filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with contextlib.closing(os.fdopen(fd, "ab", buffering=0)) as file:
            while (room := self.free_bytes - leave_bytes) > 0:
                try:
                    file.write(bytes(min(room, MIB)))
                except OSError:
                    break

    def make_room(self) -> None:
        """Take away what filled it."""
        self.filler.unlink()

    def remove(self, folder: Path) -> None:
        """Remove what a run left, and wait until the room is there: somebody may still read it, to hash it."""
        remove_tree(folder)
        wait_for(lambda: self.free_bytes > DISK_BYTES // 2, "room on the disk")


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Disk]:
    """A small file system, mounted at a folder that this makes."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=755", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")

    def unmounted() -> bool:
        return subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode == 0

    try:
        yield Disk(place)
    finally:
        wait_for(unmounted, "nobody uses the small disk")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk") as made:
        yield made


@pytest.fixture
def spell(disk: Disk, make_spell: Callable[..., Spell]) -> Iterator[Spell]:
    """A home on the small disk. In the end it must be whole, and go on."""
    spell = make_spell(root=disk.place / "home", config=CONFIG)
    assert spell.run("echo before > file").state == "complete"
    server = spell.server_pid
    yield spell
    with contextlib.suppress(FileNotFoundError):
        disk.make_room()
    assert spell.server_pid == server, "the server stayed up"
    goes_on(spell)
    with contextlib.closing(sqlite3.connect(spell.home.database)) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert store.execute("PRAGMA foreign_key_check").fetchall() == []


def goes_on(spell: Spell) -> None:
    """Another run works as if nothing had been."""
    run = spell.run("echo after > file; echo said")
    assert (run.state, run.outputs_count) == ("complete", 1)
    assert (spell.home.run_dir(run.number) / "file").read_text() == "after\n"
    assert spell.log(run.number) == b"said\n"


def failed_for_want_of_room(spell: Spell, number: int) -> RunRecord:
    """The run, which must have ended with this reason, in words."""
    run = spell.ended(number)
    assert (run.state, run.reason) == ("failed", "disk_full"), run
    assert run.message.startswith("the disk is full: ")
    return run


def patiently(cast: Callable[[], int]) -> int:
    """Cast; when the store has no room, once more: what it set aside for this moment is free then."""
    try:
        return cast()
    except DiskFull:
        return cast()


def test_f38_while_the_code_is_sent(spell: Spell, disk: Disk, repo: Path) -> None:
    (repo / "big").write_bytes(os.urandom(20 * MIB))
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "Big")
    disk.fill(MIB)
    done = spell("run", "-f", "true", cwd=repo)
    assert done.code == 1
    assert f"ERROR: the code could not be stored: the disk of {spell.home.store} is full, " in done.err, done
    assert not list(spell.home.blobs.glob("incoming-*"))
    assert len(spell.client.runs.list()) == 1, "no run was made of it"
    disk.make_room()
    assert spell("run", "-f", "true", cwd=repo).code == 0


def test_f38_while_the_code_is_unpacked(spell: Spell, disk: Disk, repo: Path) -> None:
    (repo / "big").write_bytes(os.urandom(15 * MIB))
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "Big")
    first = spell("run", "-f", "true", cwd=repo)
    assert first.code == 0
    disk.fill(2 * MIB)
    done = spell("run", "-f", "echo never > never", cwd=repo)
    assert done.code == 1, done
    run = failed_for_want_of_room(spell, done.number)
    assert run.exit_code is None
    wait_for(lambda: not spell.home.work_dir(run.number).exists(), "its work dir is gone")
    disk.make_room()
    assert spell("run", "-f", "echo now > now", cwd=repo).code == 0


def test_f38_while_the_environment_is_built(spell: Spell, disk: Disk, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "fat", extra={"fat.txt": os.urandom(6 * MIB).hex()})
    disk.fill(3 * MIB)
    run = failed_for_want_of_room(spell, patiently(lambda: spell.cast("true", pip=(str(wheel),))))
    assert "environment" in run.message
    assert not list(spell.home.environments.glob(".building-*")), "nothing of it is left"
    disk.make_room()
    assert spell.run("python -c 'import fat'", pip=(str(wheel),)).state == "complete"


WRITERS = {
    "shell": "head -c 1000000000 /dev/zero > big",
    "python": "python -c \"f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20))\"",
    "last words": "head -c 1000000000 /dev/zero > big; echo these are lost; exit 7",
}


@pytest.mark.parametrize("name", WRITERS)
def test_f38_while_the_command_writes(spell: Spell, disk: Disk, name: str) -> None:
    run = failed_for_want_of_room(spell, spell.cast(WRITERS[name]))
    assert run.exit_code == (7 if name == "last words" else 1)
    kept = spell.home.run_dir(run.number) / "big"
    assert kept.stat().st_size > MIB, "what it could write is kept"
    assert spell("ps").code == 0
    disk.remove(kept.parent)
    goes_on(spell)


def test_f38_while_the_log_is_written(spell: Spell, disk: Disk) -> None:
    run = failed_for_want_of_room(spell, spell.cast("echo first; exec yes 'a line of some length'"))
    assert run.exit_code == 1
    log = spell.log(run.number)
    assert len(log) > MIB and log.startswith(b"first\na line of some length\n")
    assert spell.client.logs.get(str(run.number)).read() == log
    spell.home.log(run.number).write_bytes(b"")


def test_f38_of_a_signal_is_told_as_well(spell: Spell, disk: Disk) -> None:
    """SIGXFSZ, SIGBUS and the like: programs die of a full disk in many ways."""
    run = failed_for_want_of_room(spell, spell.cast("ulimit -c 0; head -c 1000000000 /dev/zero > big || kill -BUS $$"))
    assert (run.exit_code, run.signal) == (None, 7)
    disk.remove(spell.home.run_dir(run.number))


def test_f38_a_stop_is_a_stop_all_the_same(spell: Spell, disk: Disk) -> None:
    number = spell.cast(
        "trap 'exit 1' TERM; head -c 1000000000 /dev/zero > big; echo full > /dev/null; while :; do sleep 0.02; done"
    )
    wait_for(lambda: disk.free_bytes < MIB, "the disk is full")
    with contextlib.suppress(DiskFull):
        spell.client.runs.stop(str(number))
    with contextlib.suppress(Exception):
        spell.client.runs.stop(str(number))
    run = spell.ended(number)
    assert (run.state, run.reason) == ("stopped", "stop_requested")
    disk.remove(spell.home.run_dir(number))


def fill_while_outputs_are_saved(spell: Spell, disk: Disk) -> dict[str, int]:
    """Files with several names are copied, which takes room. Returns the files that are not lost, and their sizes."""
    go = disk.place.parent / "go"
    os.mkfifo(go)
    number = spell.cast("head -c 10000000 /dev/zero > a; ln a b; echo small > c; read line < $GO", env={"GO": str(go)})
    wait_for((spell.home.work_dir(number) / "code" / "c").exists, "its files")
    disk.fill(5 * MIB)
    go.write_text("\n")
    run = failed_for_want_of_room(spell, number)
    assert (run.exit_code, run.outputs_count) == (0, 0)
    assert not spell.home.run_dir(number).exists(), "outputs appear whole or not at all"
    left = {path.name: path.stat().st_size for path in spell.home.work_dir(number).rglob("*") if path.is_file()}
    disk.make_room()
    disk.remove(spell.home.work_dir(number))
    return left


def test_f38_while_outputs_are_saved(spell: Spell, disk: Disk) -> None:
    left = fill_while_outputs_are_saved(spell, disk)
    assert left["a"] >= 10_000_000 or left["b"] >= 10_000_000
    assert "c" in left


def test_f38_while_a_run_ends(spell: Spell, disk: Disk) -> None:
    """There is no room for anything, not even for what the store set aside: the end waits for room, and is right."""
    go = disk.place.parent / "go"
    os.mkfifo(go)
    command = "python -c 'from orchestrator.runtime import send_metric; send_metric(\"loss\", 1.5)'; echo x > kept; read line < $GO; exit 0"
    number = spell.cast(command, env={"GO": str(go)})
    wait_for((spell.home.work_dir(number) / "code" / "kept").exists, "its file")
    for _ in range(3):
        disk.fill()
        with contextlib.suppress(DiskFull):
            spell.cast("true")  # until the store has used up what it set aside
    disk.fill()
    go.write_text("\n")
    wait_for((spell.home.attempt_dir(number, 1) / "verdict.json").exists, "the command has ended")
    disk.make_room()
    run = spell.ended(number)
    assert (run.state, run.exit_code, run.outputs_count) == ("complete", 0, 1)
    assert (spell.home.run_dir(number) / "kept").read_text() == "x\n"
    assert [(item.name, item.value) for item in spell.client.metrics.list(str(number))] == [("loss", 1.5)]


def test_f38_store_has_no_room(spell: Spell, disk: Disk) -> None:
    """What needs to be written is refused with words; what is there can be read; nothing is half done."""
    refused = 0
    for _ in range(4):
        disk.fill()
        done = spell("run", "-f", "-b", "true")
        refused += done.code != 0
        if done.code:
            assert "ERROR" in done.err and " is full" in done.err, done
    assert refused >= 2
    listed = spell("ps", "--json")
    assert listed.code == 0
    numbers = [run["number"] for run in listed.json()]
    assert numbers == list(range(1, len(numbers) + 1)), "no number was used up by what was refused"
    assert spell("logs", "1").code == 0 and spell("info", "1").code == 0
    assert spell("cat", "runs/1/file").out == "before\n"
    disk.make_room()
    for number in numbers:
        assert spell.ended(number).state in ("complete", "failed")


def test_f38_server_that_starts_on_a_full_disk(disk: Disk, make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(root=disk.place / "home", config=CONFIG)
    number = spell.cast("sleep 1000")
    spell.reaches(number, "running")
    disk.fill()
    spell.kill_server()
    done = spell("ps")
    if done.code:
        assert "ERROR" in done.err and "Traceback" not in done.err
    disk.make_room()
    assert spell("ps").code == 0
    spell.client.runs.stop(str(number))
    assert spell.ended(number, DEADLINE_S).state == "stopped"
    goes_on(spell)


def test_f38_a_full_disk_leaves_a_way_out(spell: Spell, disk: Disk, tmp_path: Path) -> None:
    """A run that has ended waits and says for what; what takes space can be archived, removed and ended all the same."""
    (tmp_path / "set").write_text("one\n")
    assert spell("upload", "--name", "set", str(tmp_path / "set")).code == 0
    big = spell.run("head -c 5000000 /dev/urandom > big").number
    ends = spell.cast("mkdir -p a/b; echo x > a/b/kept; while [ ! -e go ]; do sleep 0.02; done; rm go")
    goes_on_for_ever = spell.cast("sleep 1000")
    for number in (ends, goes_on_for_ever):
        spell.reaches(number, "running")
    wait_for((spell.home.work_dir(ends) / "code" / "a" / "b" / "kept").exists, "its file")
    while spell.home.ballast.exists():
        disk.fill()
        with contextlib.suppress(DiskFull):
            spell.client.labels.add(str(big), ["label"])
    disk.fill()
    (spell.home.work_dir(ends) / "code" / "go").touch()
    words = f"disk space, to record its state: 0 KiB are free on the disk of {spell.home.store}, 128 KiB are needed"
    wait_for(lambda: spell.client.runs.get(str(ends)).waits_for == words, "the reason why the run waits")
    assert f"Run {ends} waits for {words}.\n" in spell("ps").err
    assert f"Waits For     {words}\n" in spell("info", str(ends)).out
    refused = spell("run", "-f", "true")
    assert (refused.code, refused.err.splitlines()[-2]) == (
        1,
        f"ERROR: The disk of {spell.home.root} is full: 0 KiB are free, too little to cast a run.",
    )
    for command in (["archive", str(big)], ["rm", "-f", "uploads/set"], ["kill", str(goes_on_for_ever)]):
        done = spell(*command)
        assert (done.code, done.err) == (0, ""), done
        disk.fill()
    assert spell.home.reserve.stat().st_size > MIB // 2, "what is left of it is kept again"
    done = spell("gc", "--older-than", "0")
    assert (done.code, f"outputs of run {big}" in done.out, disk.free_bytes > MIB) == (0, True, True), done
    run = spell.ended(ends)
    assert (run.state, run.outputs_count) == ("complete", 1)
    assert spell.ended(goes_on_for_ever).state == "killed"


def test_f38_again_and_again(spell: Spell, disk: Disk) -> None:
    """What the store sets aside is set aside again when there is room."""
    for _ in range(3):
        run = failed_for_want_of_room(spell, spell.cast(WRITERS["shell"]))
        disk.remove(spell.home.run_dir(run.number))
        goes_on(spell)


@pytest.mark.parametrize("namespaces", [True, False])
def test_f38_while_the_command_is_started(disk: Disk, token: str, namespaces: bool) -> None:
    """Whatever room is left, from none to enough: it is started, or the disk is full, and nothing in between."""
    executor = ProcessExecutor(namespaces=namespaces)
    found = []
    for pages in range(12):
        folder = disk.place / f"attempt-{pages}"
        code = disk.place / f"code-{pages}"
        folder.mkdir()
        code.mkdir()
        launch = make_launch(
            disk.place, "exit 3", code=code, folder=folder, log=folder / "log", env={"TOKEN": token}, grace_s=0.1
        )
        disk.fill(pages * os.sysconf("SC_PAGE_SIZE"))
        try:
            verdict = executor.wait(executor.start(launch), DEADLINE_S)
        except DiskFull as error:
            found.append(str(error))
            assert token.encode() not in b"".join(path.read_bytes() for path in folder.iterdir())
        else:
            assert verdict is not None and verdict.exit_code == 3
            found.append("")
        assert not bearing(token)
        disk.make_room()
    assert found[0] and not found[-1]
    assert found == sorted(found, key=lambda words: not words), "with more room it does not get worse"


@pytest.mark.parametrize("gently", [True, False], ids=["ended", "killed"])
def test_f38_server_starts_on_a_disk_without_one_byte_left(
    disk: Disk, make_spell: Callable[..., Spell], gently: bool
) -> None:
    """What the store set aside is let go for the next server, before anything else is written."""
    spell = make_spell(root=disk.place / "home", config=CONFIG)
    assert spell.run("true").state == "complete"
    assert spell.home.database.with_suffix(".ballast").exists()

    def end() -> None:
        assert spell("server", "stop").code == 0 if gently else spell.kill_server() is None
        disk.fill()
        assert disk.free_bytes == 0

    for _ in range(2):  # with what the store set aside, then with what is kept for those who free space
        end()
        done = spell("ps", "--json")
        assert (done.code, [run["number"] for run in done.json()]) == (0, [1]), done
    assert not spell.home.ballast.exists()
    assert spell("archive", "1").code == 0

    spell.home.reserve.unlink()
    end()  # what was set aside is used up
    done = spell("ps")
    assert (done.code, done.err.splitlines()[0]) == (1, f"ERROR: The disk of {spell.home.store} is full."), done
    assert "Free some space" in done.err
    disk.make_room()
    goes_on(spell)


def test_f38_store_is_opened_without_one_byte_left(disk: Disk) -> None:
    path = disk.place / "spell.db"
    Database(path).close()
    for words in ("", f"The disk of {disk.place} is full."):
        disk.fill()
        assert disk.free_bytes == 0
        with pytest.raises(DiskFull, match=words) if words else contextlib.nullcontext():
            Database(path).close()
    disk.make_room()
    Database(path).close()
    assert path.with_suffix(".ballast").exists()


def test_f38_what_is_free_is_not_kept_from_the_runs(disk: Disk) -> None:
    """Whether nothing or a part is left of what is kept: nobody frees what the store would take for it."""
    path = disk.place / "spell.db"
    reserve = path.with_suffix(".reserve")
    with contextlib.closing(Database(path)) as store:
        path.with_suffix(".ballast").unlink()
        for left_bytes in (0, MIB // 8, MIB // 2):
            reserve.write_bytes(bytes(left_bytes))
            disk.fill(MIB * 5 // 8 - left_bytes)
            with store.way_out():
                pass
            assert disk.free_bytes >= min(MIB // 4, MIB * 5 // 8 - left_bytes)
            assert reserve.stat().st_size >= max(left_bytes, MIB * 5 // 8 - MIB // 4 - 4096)
            with store.write() as connection:
                connection.exec_driver_sql(f"PRAGMA user_version = {left_bytes}")
            disk.make_room()


def test_f38_a_new_home_gets_no_store_without_its_identity(disk: Disk) -> None:
    """The next server would take it for a home of an old version, and never find its containers again."""
    home = Home(disk.place / "home")
    home.create()
    disk.fill()
    with pytest.raises(DiskFull, match=f"The disk of {home.store} is full."):
        Assembly(home, {"fake": FakeExecutor()})
    assert not home.database.exists()
