"""The home: whose files it has, who may read them, what lies in the place of its files; copied, moved, and gone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import DEADLINE_S, Spell, wait_for
from test_doctor import NO_ENGINE, checks

from orchestrator.data.identity import identify, note
from orchestrator.executors.fake import FakeExecutor
from orchestrator.home import Home, make_folder, server_of
from orchestrator.lifecycle.context import Context
from orchestrator.server.assembly import Assembly
from orchestrator.service.executors import Executors
from orchestrator.states import StopRequest

EXECUTORS = ["process", pytest.param("docker", marks=pytest.mark.engine)]
ONE_CORE = "[machine_types.cpu]\ncpus = 1\n[machine_types.all]\ncpus = 2\n"


def mode(path: Path) -> int:
    """The mode of a file or folder."""
    return path.stat().st_mode & 0o7777


def at(spell: Spell, root: Path) -> Spell:
    """The same person, with another home."""
    return Spell(root, spell.cwd, spell.env)


# -- copied, and moved ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_copy_leaves_the_runs_of_its_original_alone(
    make_spell: Callable[..., Spell], tmp_path: Path, executor: str
) -> None:
    original = make_spell("original", ONE_CORE, docker=executor == "docker")
    number = original.cast("echo begun; while [ ! -e go ]; do sleep 0.05; done; rm go; echo kept > kept")
    original.says(number, b"begun")
    waiting = original.cast("true", machine_type="all")  # does not fit beside the first
    done = original("hyper", "grid", "-b", "--param", "x=1,2", "-t", "all", "echo :x:")
    assert done.code == 0, done
    original.copy_home(tmp_path / "copy")

    copy = at(original, tmp_path / "copy")
    # it was made just after a request that the server had accepted
    asked = {"process": StopRequest.KILL, "docker": StopRequest.STOP}[executor]
    with copy.opened_store() as store:
        store.request_stop(number, asked)
    try:
        found = {run["number"]: run for run in copy("ps", "--json").json()}
        assert {run["state"] for run in found.values()} == {"interrupted"}, found
        assert copy.client.runs.get(str(number)).reason == "home_copied"
        refused = copy("kill", str(number))
        assert (refused.code, "already finished" in refused.err) == (1, True), refused
        assert copy("hyper", "list", "--json").json()[0]["state"] == "stopped"
        copy.kill_server()
        assert copy.run("echo its own > file", executor="process").state == "complete", (
            "it goes on as a home of its own"
        )
        assert copy.client.runs.get(str(waiting)).state == "interrupted"
        assert identify(copy.home).key != identify(original.home).key
        copy.client.gc.remove(0.0)
    finally:
        copy.end()

    assert original.client.runs.get(str(number)).state == "running"
    (original.home.work_dir(number) / "code" / "go").touch()
    run = original.ended(number)
    assert (run.state, run.outputs_count) == ("complete", 1), run
    assert original.ended(waiting).state == "complete"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_home_that_is_moved_goes_on(make_spell: Callable[..., Spell], tmp_path: Path, executor: str) -> None:
    """Nobody makes a new home in the old place while its server lives, and who follows a run is told."""
    spell = make_spell("before", docker=executor == "docker")
    number = spell.cast("echo begun; while [ ! -e go ]; do sleep 0.05; done")
    spell.says(number, b"begun")
    stopped = spell.cast("trap 'exit 3' TERM; echo begun; sleep 9999 & wait", executor="process")
    spell.says(stopped, b"begun")
    key = identify(spell.home).key
    follower = spell.popen("logs", "-f", str(number))
    assert follower.stdout and follower.stdout.readline() == b"begun\n"
    with spell.frozen():
        spell.home.root.rename(tmp_path / "after")
        for words in (["ps"], ["server", "status"], ["run", "-f", "true"]):
            done = spell(*words)
            said = f"ERROR: The home {spell.home.root} is gone: it was moved or removed, and its server (process "
            assert (done.code, done.err.splitlines()[-2].startswith(said)) == (1, True), done
    _, err = follower.communicate(timeout=DEADLINE_S)
    assert (follower.returncode, f"The home {spell.home.root} is gone" in err.decode()) == (1, True), err
    wait_for(lambda: not server_of(spell.home.root), "the end of the old server")
    assert not spell.home.root.exists()

    moved = at(spell, tmp_path / "after")
    try:
        moved.reaches(number, "running")
        assert "was moved or removed. This server ends" in moved.home.server_log.read_text()
        assert identify(moved.home).key == key
        (moved.home.work_dir(number) / "code" / "go").touch()
        assert moved.ended(number).state == "complete"
        assert moved("stop", str(stopped)).code == 0
        run = moved.ended(stopped)
        assert (run.state, run.exit_code) == ("stopped", 3), run
        said = [event.text for event in moved.client.runs.events(str(stopped)) if event.kind == "notice"]
        assert [f"ln -s {moved.home.root} {spell.home.root}" in text for text in said] == [True], "said once"
        said = [event.text for event in moved.client.runs.events(str(number)) if event.kind == "notice"]
        assert len(said) == (executor == "process"), said
    finally:
        moved.end()


def test_the_identity_of_a_home(tmp_path: Path) -> None:
    """It survives a move, not a copy, and not even a restore into the same place."""
    home = Home(tmp_path / "home")
    home.create()
    first = identify(home)
    note(home, first)
    assert not first.is_copy and identify(home) == first
    home.root.rename(tmp_path / "moved")
    moved = Home(tmp_path / "moved")
    assert identify(moved) == first and identify(moved).moved_from == str(tmp_path / "home")
    note(moved, first)
    assert not identify(moved).moved_from
    (tmp_path / "link").symlink_to(moved.root)
    assert not identify(Home(tmp_path / "link")).moved_from

    shutil.copytree(moved.root, tmp_path / "backup")
    for _ in range(5):  # the system likes to give the same inode again
        shutil.rmtree(moved.root)
        shutil.copytree(tmp_path / "backup", moved.root)
        restored = identify(moved)
        assert restored.is_copy and restored.key != first.key
    note(moved, restored)
    assert identify(moved).key == restored.key and not identify(moved).is_copy

    snapshot = Home(tmp_path / "snapshot")  # of a whole disk, where inodes are the same
    snapshot.create()
    note(snapshot, identify(snapshot))
    words = json.loads(snapshot.identity.read_text()) | {"key": restored.key, "path": str(moved.root)}
    snapshot.identity.write_text(json.dumps(words))
    assert identify(snapshot).is_copy
    moved.root.rename(tmp_path / "away")
    assert not identify(snapshot).is_copy, "it was moved"

    new = Home(tmp_path / "new")  # whose first server is killed while it starts: its store is there
    new.create()
    Assembly(new, {"fake": FakeExecutor()})
    assert new.database.exists() and identify(new).key != str(new.root) and not identify(new).is_copy

    old = Home(tmp_path / "old")  # of a version that noted nothing: its containers bear its path
    old.create()
    old.database.touch()
    assert (identify(old).key, identify(old).is_copy) == (str(old.root), False)
    old.identity.mkdir()
    note(old, identify(old))
    assert identify(old).key == str(old.root) and old.identity.is_file()


# -- something else in the place of its files -------------------------------------------------------------------------


def test_folders_in_the_place_of_files(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell()
    first = spell.run("true")
    assert spell("server", "stop").code == 0
    home = spell.home
    places = [home.socket, home.lock, home.launch_lock, home.server_log, home.ballast, home.identity]
    places += [home.environments / f".lock-{first.environment}", home.runtime / "bin" / "spell"]
    places.append(Path(f"{home.database}-shm"))
    for path in places:
        path.unlink(missing_ok=True)
        (path / "below").mkdir(parents=True)
    assert spell.run("true").state == "complete"
    for path in places:
        aside = list(path.parent.glob(f"{path.name}.folder-*"))
        assert [child.name for child in aside[0].iterdir()] == ["below"], "what lay there is kept"


def test_another_thing_in_the_place_of_the_socket_of_a_server(make_spell: Callable[..., Spell]) -> None:
    """Nobody can reach that server: it ends, and its run goes on under the next one."""
    spell = make_spell()
    number = spell.cast("while [ ! -e go ]; do sleep 0.05; done")
    spell.reaches(number, "running")
    old = spell.server_pid
    spell.home.socket.unlink()
    spell.home.socket.touch()
    assert [run["state"] for run in spell("ps", "--json").json()] == ["running"]
    assert spell.server_pid != old
    (spell.home.work_dir(number) / "code" / "go").touch()
    assert spell.ended(number).state == "complete"


# -- modes ------------------------------------------------------------------------------------------------------------


def test_modes_do_not_depend_on_the_umask(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    spell = make_spell()
    root = tmp_path / "new" / "home"
    done = spell("run", "-f", "--executor", "process", "mkdir d; echo x > d/f", env={"SPELL_HOME": str(root)}, umask=0)
    fresh = at(spell, root)
    try:
        assert done.code == 0, done
        assert spell("upload", "--name", "up", str(tmp_path / "home" / "config.toml"), env=fresh.env, umask=0).code == 0
        assert (mode(root), mode(fresh.home.store), mode(root.parent)) == (0o700, 0o700, 0o755)
        ours = (
            path for path in root.rglob("*") if not path.is_symlink() and path.name != ".lock"
        )  # uv's has a mode of its own
        wide = [path for path in ours if path.stat().st_mode & 0o022]
        assert not wide, wide
    finally:
        fresh.end()


def test_who_can_read_a_home(make_spell: Callable[..., Spell]) -> None:
    """What lets others in is named by doctor, and corrected by the next server."""
    spell = make_spell(DOCKER_HOST=NO_ENGINE)
    home = spell.home
    assert spell.run("echo x > file").state == "complete"
    assert (mode(home.root), mode(home.store)) == (0o700, 0o700)
    assert checks(spell("doctor", "--json"))["modes"].status == "ok"
    for path in (home.root, home.store):
        path.chmod(0o755)
    home.runs.chmod(0o777)
    done = spell("doctor")
    assert done.code == 1
    for path in (home.root, home.store):
        assert f"other users of this machine can reach {path}, whose mode is 755" in done.out
        assert f"chmod 700 {path}" in done.out
    assert spell("server", "stop").code == 0
    assert checks(spell("doctor", "--json"))["modes"].status == "ok"
    assert (mode(home.root), mode(home.store), mode(home.runs)) == (0o700, 0o700, 0o755)

    with home.config.open("a") as file:
        file.write('readable_by = "group"\n')
    shown = spell("server", "status")
    assert shown.err == "config.toml was changed since then, and is not used yet. To use it: spell server stop\n", shown
    assert spell("server", "status", "--json").json()["config_changed"] is True
    assert checks(spell("doctor", "--json"))["config"].cure == "To use it: spell server stop"
    assert spell("server", "stop").code == 0
    found = checks(spell("doctor", "--json"))
    assert (mode(home.root), "config" in found, found["modes"].status) == (0o750, False, "ok")
    (home.root / "notes.txt").touch()  # a folder that a person has for other things, too, is left as it is
    home.root.chmod(0o755)
    assert spell("server", "stop").code == 0
    assert checks(spell("doctor", "--json"))["modes"].status == "ok"
    assert (mode(home.root), mode(home.runs), mode(home.uploads), mode(home.store)) == (0o755, 0o750, 0o750, 0o700)


def test_a_folder_has_the_mode_that_it_was_made_with(tmp_path: Path) -> None:
    code = "import sys, os; from pathlib import Path; from orchestrator.home import make_folder; os.umask(int(sys.argv[1], 8)); make_folder(Path(sys.argv[2]), 0o755)"
    for umask in ("000", "027", "077"):
        subprocess.run([sys.executable, "-c", code, umask, str(tmp_path / umask)], check=True)
        assert mode(tmp_path / umask) == 0o755
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file", 0o700)


# -- warnings ---------------------------------------------------------------------------------------------------------


class Away(FakeExecutor):
    """Expected here, and cannot run anything."""

    name = "away"
    is_expected = True
    lack = "No engine answers."

    def lacks(self) -> str:
        return self.lack


def test_an_executor_that_is_passed_over_is_told_of_once_a_day() -> None:
    away = Away()
    found: dict[str, Any] = {"away": away, "fake": FakeExecutor()}
    executors = Executors(cast("Context", SimpleNamespace(executors=found)), list(found))
    said = list(executors.passed_over("fake"))
    assert said == [
        "This run does not go to the away executor: No engine answers. See: spell doctor (this is said once a day)"
    ]
    assert not list(executors.passed_over("fake"))
    away.lack = "You may not use it."
    assert len(list(executors.passed_over("fake"))) == 1, "another reason is news"
