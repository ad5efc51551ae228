"""What a run cannot do to others: with namespaces and without, as root and as a person who is not.

The person owns all that the tests own, but has none of root's rights: a user namespace of its own gives another user id.
Without namespaces only the modes of files hold a run back, and root not even those; what is promised there is less.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import Spell, bearing, wait_for

from orchestrator.environments import own_pip
from orchestrator.executors.process import ProcessExecutor
from orchestrator.spec.mounts import Mount

CONFIG = "grace_s = 0.4\nsample_interval_s = 0.2\n[machine_types.cpu]\ncpus = 0.05\n"
PERSON_ID = 4242
PERSON = ("unshare", "--user", f"--map-user={PERSON_ID}", f"--map-group={PERSON_ID}", "--")
MODES = {"namespaces": {}, "processes": {"SPELL_NAMESPACES": "never"}}


@dataclass(frozen=True)
class Place:
    """A home, who has it (`root` or `person`), and how its runs are isolated."""

    spell: Spell
    who: str
    mode: str


@pytest.fixture(scope="module", params=[(who, mode) for who in ("root", "person") for mode in MODES], ids="-".join)
def place(request: pytest.FixtureRequest, make_shared: Callable[..., Spell]) -> Place:
    who, mode = request.param
    if who == "root" and os.getuid() != 0:
        pytest.skip("these tests do not run as root")
    if who == "person" and (not shutil.which("unshare") or subprocess.run([*PERSON, "true"], check=False).returncode):
        pytest.skip("nobody can become another user here: no user namespaces")
    if mode == "namespaces" and ProcessExecutor().isolation == "none":
        pytest.skip("the kernel gives no private namespaces here")
    spell = make_shared(f"{who}-{mode}", CONFIG, prefix=PERSON if who == "person" else (), **MODES[mode])
    done = spell("server", "start")
    assert done.code == 0, done
    return Place(spell, who, mode)


def test_a_run_cannot_move_or_remove_its_home(place: Place) -> None:
    if place.mode == "processes":
        return  # only the modes of the folders above hold it back
    run = place.spell.run('mv "$SPELL_HOME" "$SPELL_HOME.x"; rmdir "$SPELL_HOME"; ls "$SPELL_HOME"; exit 3')
    said = place.spell.log(run.number).decode()
    assert (run.state, run.exit_code, said.count("Device or resource busy")) == ("failed", 3, 2), said
    assert said.endswith("config.toml\nruns\nstore\nuploads\n")
    assert place.spell("ps", "--json").json()[-1]["number"] == run.number


def test_both_are_what_they_say(place: Place) -> None:
    number = place.spell.run("id -u; readlink /proc/self/ns/pid").number
    user, namespace = place.spell.log(number).decode().split()
    assert user == ("0" if place.who == "root" else str(PERSON_ID))
    assert (namespace == os.readlink("/proc/self/ns/pid")) == (place.mode == "processes")


# -- an earlier run stays as it is ---------------------------------------------------------------------------------


def fingerprint(root: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, modification time and content of everything below a folder, and of the folder."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
        found[path.relative_to(root).as_posix()] = (status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.fixture
def source(place: Place) -> int:
    """A run that left a file and a folder."""
    return place.spell.run("echo data > data.txt; mkdir -p model/deep; echo w > model/w; echo d > model/deep/d").number


# What the modes of sealed files already hold back. $RUN is the folder of the earlier run.
WRITES = """
echo x >> data.txt
: > data.txt
echo x > model/new
rm -f model/w
mv model/w model/v
echo x > own && ln -f own model/linked
echo x >> $RUN/data.txt
echo x > $RUN/new
rm -rf $RUN/model
mv $RUN/data.txt $RUN/moved
mv $RUN/model own-model
ln $RUN/data.txt mine && echo x >> mine
python -c 'open("data.txt", "r+").write("x")'
python -c 'import os; os.truncate("data.txt", 0)'
dd if=/dev/zero of=data.txt bs=1 count=1 conv=notrunc
""".strip().splitlines()
# What an owner can undo, and so only namespaces hold back. $STORE is the store, $OTHER the work dir of another run.
OWNERS = """
touch data.txt model
chmod u+w data.txt; echo x >> data.txt
chmod -R u+w model; rm -rf model/deep
chmod -R u+w $RUN; echo x >> $RUN/data.txt
rm -rf $RUN
mv $RUN $RUN-gone
ln $RUN/data.txt mine2; chmod u+w mine2; echo x >> mine2
echo x > $RUN/../new-run
rm -f $STORE/spell.db
echo x >> $STORE/spell.db
echo x >> $STORE/records/1/log
rm -rf $STORE/blobs $STORE/trees
echo x > $OTHER/evil
echo x > $RUN/../../uploads/new
cd /; rm -f $RUN/data.txt; cd -
""".strip().splitlines()
# What somebody who is not root may try beside.
NESTED = """
umount data.txt
umount -l $RUN/..
mount -o remount,bind,rw $RUN/.. && echo x >> $RUN/data.txt
unshare --user --map-root-user --mount sh -c 'mount -o remount,bind,rw $RUN/..; umount -l data.txt; echo x >> $RUN/data.txt'
unshare --user --map-root-user --mount sh -c 'umount -l $RUN/..; umount -l $STORE; chmod u+w $RUN/data.txt; echo x >> $RUN/data.txt'
""".strip().splitlines()


def _attacks(place: Place) -> list[str]:
    if place.mode == "processes" and place.who == "root":
        pytest.skip("without namespaces nothing holds root back")
    if place.mode == "processes":
        return WRITES
    return WRITES + OWNERS + (NESTED if place.who == "person" else [])


def test_a_run_cannot_change_an_earlier_one(place: Place, source: int) -> None:
    spell, attacks = place.spell, _attacks(place)
    other = spell.cast("echo ready; sleep 1000")
    spell.says(other, b"ready\n")
    before = fingerprint(spell.home.run_dir(source))
    watched = [spell.home.runs, spell.home.uploads, spell.home.logs / "1", spell.home.work_dir(other) / "code"]
    names = [sorted(os.listdir(path)) for path in watched]
    env = {
        "RUN": str(spell.home.run_dir(source)),
        "STORE": str(spell.home.store),
        "OTHER": str(spell.home.work_dir(other) / "code"),
    }
    command = "\n".join(f"( {attack} ) > /dev/null 2>&1; echo tried {number}" for number, attack in enumerate(attacks))
    mounts = (Mount(f"runs/{source}/data.txt", "data.txt"), Mount(f"runs/{source}/model", "model"))
    number = spell.cast(f"{command}\ncat data.txt model/w model/deep/d\necho y > after", env=env, mounts=mounts)
    run = spell.ended(number)
    said = spell.log(number).decode().splitlines()
    assert said == [*(f"tried {index}" for index in range(len(attacks))), "data", "w", "d"]
    assert run.state == "complete"
    assert fingerprint(spell.home.run_dir(source)) == before
    assert (spell.home.run_dir(number) / "after").read_text() == "y\n"
    assert [sorted(set(os.listdir(path)) - {str(number)}) for path in watched] == names
    assert spell.client.runs.get(str(other)).state == "running"
    spell.client.runs.kill(str(other))
    spell.ended(other)


def test_an_editor_writes_beside_and_renames_over(place: Place, source: int) -> None:
    """With namespaces the mounted file stays. Without, it is a link: the run's own file in its place is an output."""
    mounts = (Mount(f"runs/{source}/data.txt", "data.txt"), Mount(f"runs/{source}/model", "model"))
    number = place.spell.run(
        "cat data.txt > beside; echo x >> beside; mv -f beside data.txt; cat data.txt", mounts=mounts
    ).number
    held = place.mode == "namespaces"
    root = place.spell.home.run_dir(number)
    assert place.spell.log(number).endswith(b"data\n" if held else b"data\nx\n")
    assert {path.name: path.read_text() for path in root.iterdir()} == {"beside" if held else "data.txt": "data\nx\n"}
    assert (place.spell.home.run_dir(source) / "data.txt").read_text() == "data\n"


def test_mounts_beside_outputs(place: Place, source: int) -> None:
    mounts = (Mount(f"runs/{source}/model", "in/model"), Mount(f"runs/{source}/data.txt", "in/deep/data.txt"))
    number = place.spell.run(
        "cat in/model/w in/deep/data.txt; echo n > in/new; echo n > in/deep/new", mounts=mounts
    ).number
    assert place.spell.log(number) == b"w\ndata\n"
    root = place.spell.home.run_dir(number)
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()) == [
        "in/deep/new",
        "in/new",
    ]


# -- whatever modes a run gives to its files -----------------------------------------------------------------------


def test_modes_that_a_run_took_away_do_not_matter(place: Place) -> None:
    command = """mkdir -p shut/deep/er; echo x > shut/deep/er/file; : > shut/deep/er/empty
        chmod 0 shut/deep/er/file shut/deep/er shut/deep shut
        mkdir fixed; echo y > fixed/file; chmod 444 fixed/file; chmod 555 fixed
        mkdir -p ignored/deep/er; echo z > ignored/deep/er/file; chmod 0 ignored/deep/er ignored/deep ignored
        chmod 555 ."""
    run = place.spell.run(command, ignore=("ignored/",))
    assert run.state == "complete", run
    root = place.spell.home.run_dir(run.number)
    assert (root / "shut/deep/er/file").read_text() == "x\n"
    assert (root / "fixed/file").read_text() == "y\n"
    assert sorted(path.name for path in root.iterdir()) == ["fixed", "shut"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")} == {0o444, 0o555}
    wait_for(lambda: not place.spell.home.work_dir(run.number).exists(), "its work dir is gone")


def test_killed_run_leaves_no_files(place: Place) -> None:
    spell = place.spell
    number = spell.cast("mkdir -p a/b/c; echo x > a/b/c/d; chmod 0 a/b/c a/b a; echo ready; sleep 1000")
    spell.says(number, b"ready\n")
    spell.client.runs.kill(str(number))
    assert spell.ended(number).state == "killed"
    wait_for(lambda: not spell.home.work_dir(number).exists(), "its work dir is gone")
    assert not spell.home.run_dir(number).exists()


# -- processes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_f14_nothing_outlives_a_run(place: Place, token: str, verb: str) -> None:
    spell = place.spell
    command = "setsid sleep $TOKEN & ( nohup sleep $TOKEN & ) ; setsid bash -c 'trap \"\" TERM; echo deaf; sleep $TOKEN; :' & wait"
    number = spell.cast(command, env={"TOKEN": token})
    spell.says(number, b"deaf\n")
    wait_for(lambda: len(bearing(token)) >= 5, "all of them")
    assert spell(verb, str(number)).code == 0
    assert spell.ended(number).state == {"stop": "stopped", "kill": "killed"}[verb]
    assert not bearing(token)


def test_a_run_sees_and_signals_only_its_own_processes(place: Place) -> None:
    if place.mode == "processes":
        pytest.skip("without namespaces a run sees all processes")
    spell = place.spell
    other = spell.cast("echo ready; sleep 1000")
    spell.says(other, b"ready\n")
    ours = os.readlink("/proc/self/ns/pid")
    command = f"""ls /proc | grep -c '^[0-9]'
        sleep 1000 &
        for pid in $(seq 3 60000); do kill -0 $pid 2>/dev/null && echo $pid; done | wc -l
        [ $(readlink /proc/self/ns/pid) != '{ours}' ] && trap '' TERM && kill -TERM -1; echo alone"""
    number = spell.run(command).number
    seen, reached, alone = spell.log(number).decode().split()
    assert int(seen) <= 5
    assert int(reached) <= 4  # sleep, the loop, wc, and a thread of the process that looks after them
    assert alone == "alone"
    assert spell.client.runs.get(str(other)).state == "running"
    assert psutil.pid_exists(spell.server_pid)
    spell.client.runs.kill(str(other))
    spell.ended(other)


def test_f51_run_inside_a_run(place: Place) -> None:
    """The server's socket can be reached from inside, though the store is read-only there."""
    number = place.spell.run("spell run -f 'echo inner $SPELL_RUN'; echo outer $SPELL_RUN").number
    assert place.spell.log(number + 1) == b"inner %d\n" % (number + 1)
    assert place.spell.log(number).endswith(b"outer %d\n" % number)


def test_a_run_leaves_nothing_in_the_pip_of_spell(place: Place) -> None:
    package = own_pip()
    assert package is not None
    before = sorted(package.rglob("*"))
    where = "import os, pip; print(os.path.realpath(os.path.dirname(pip.__file__)))"
    number = place.spell.run(f"python -m pip --version; cd $(python -c '{where}') && pwd && touch left").number
    *_, version, folder = [line for line in place.spell.log(number).decode().splitlines() if "left" not in line]
    assert version.startswith("pip ")
    assert (Path(folder) == package) == (place.mode == "namespaces"), "else it has a copy"
    assert sorted(package.rglob("*")) == before


def test_home_is_its_owners(place: Place) -> None:
    """Logs, environments of runs and the socket are for nobody else."""
    home = place.spell.home
    assert stat.S_IMODE(home.store.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.socket.stat().st_mode) & 0o077 == 0
