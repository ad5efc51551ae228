"""What is kept free on the disk of the home, and how much the home may take of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Done, Spell, wait_for
from wheels import make_wheel

from orchestrator.environments import Environment, EnvironmentRequest, Environments, Limit
from orchestrator.environments.lock import lock_path
from orchestrator.home import Home

DAY_S = 86400
SMALL = "[machine_types.small]\ncpus = 0.1\n"


def test_no_run_is_cast_when_the_disk_has_too_little(make_spell: Callable[..., Spell]) -> None:
    """Refused before there is a run, with the way out."""
    spell = make_spell(config="[limits]\nfree_gb = 1000000\n")
    told = spell("run", "true")
    assert told.code == 1 and " left; no run is cast" in told.err and "spell gc" in told.err, told
    assert spell.client.runs.list() == []
    (found,) = [item for item in spell("doctor", "--json").json() if item["name"] == "room"]
    assert (found["status"], "free_gb" in found["text"]) == ("fail", True)


def test_nothing_is_taken_in_when_the_home_takes_too_much(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    """Refused before there is a run or an upload, with what takes how much; and accepted when there is room again."""
    spell = make_spell(config=f"{SMALL}[limits]\nhome_gb = 0.005\n")
    (tmp_path / "big").write_bytes(os.urandom(8 << 20))
    (tmp_path / "little").write_bytes(b"little")
    assert spell.run("head -c 7M /dev/urandom > data", machine_type="small").state == "complete"

    told = spell("run", "true", "--machine-type", "small")
    assert told.code == 1 and "home_gb allows 5.1 MiB. Runs 7.0 MiB, " in told.err, told
    assert "spell archive" in told.err and "spell gc" in told.err
    assert [run.number for run in spell.client.runs.list()] == [1]
    told = spell("upload", str(tmp_path / "little"))
    assert told.code == 1 and "home_gb" in told.err, told
    (found,) = [item for item in spell("doctor", "--json").json() if item["name"] == "room"]
    assert found["status"] == "warn" and "Runs 7.0 MiB" in found["text"] and "spell gc" in found["cure"]

    assert spell("archive", "1").code == 0
    wait_for(lambda: "outputs of run 1" in spell("gc", "--older-than", "0").out, "its outputs go")
    assert spell.run("true", machine_type="small").state == "complete"
    told = spell("upload", str(tmp_path / "big"))
    assert told.code == 1 and "8.0 MiB would be added" in told.err, told
    assert not list(spell.home.uploads.iterdir()) and not list(spell.home.incoming.iterdir())
    assert spell("upload", str(tmp_path / "little")).code == 0
    (found,) = [item for item in spell("doctor", "--json").json() if item["name"] == "room"]
    assert (found["status"], found["cure"]) == ("ok", "")


def test_what_the_store_does_not_know_is_measured(make_spell: Callable[..., Spell]) -> None:
    """In the background: a cast does not wait for it."""
    spell = make_spell(config=f"{SMALL}[limits]\nhome_gb = 0.005\n")
    assert spell.run("true", machine_type="small").state == "complete"
    assert spell("server", "stop").code == 0
    (spell.home.environments / ".large").write_bytes(bytes(6 << 20))

    def refused() -> Done | None:
        done = spell("run", "true", "--machine-type", "small")
        return done if done.code else None

    told = wait_for(refused, "nothing more is taken in")
    assert "Environments 6." in told.err, told


# -- environments -----------------------------------------------------------------------------------------------------


def grow_old(home: Home, key: str | None, days: float) -> None:
    """An environment was used so many days ago."""
    assert key
    moment = time.time() - days * DAY_S
    os.utime(home.environment(key), (moment, moment))


def environments(home: Home) -> set[str]:
    """The keys of all that there are."""
    return {path.name for path in home.environments.iterdir() if not path.name.startswith(".")}


def test_f35_the_bound_of_environments(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    """After a build those go that are too many: not what an active run uses, nor what was used just now."""
    spell = make_spell(config=f"{SMALL}[limits]\nenvironments_gb = 0.000001\n")
    active = spell.cast("echo up; sleep 1000", machine_type="small", pip=(str(make_wheel(tmp_path, "tiny")),))
    spell.says(active, b"up")
    used = spell.client.runs.get(str(active)).environment
    unused = spell.run("true", machine_type="small").environment
    assert environments(spell.home) == {used, unused}  # both are young
    grow_old(spell.home, used, 3)
    grow_old(spell.home, unused, 2)
    newest = spell.run("true", machine_type="small", pip=(str(make_wheel(tmp_path, "small")),)).environment
    wait_for(lambda: unused not in environments(spell.home), "the unused environment goes")
    assert environments(spell.home) == {used, newest}
    assert spell.client.runs.get(str(active)).state == "running"


def test_f35_without_a_bound_they_stay(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    spell = make_spell(config=SMALL)
    first = spell.run("true", machine_type="small").environment
    grow_old(spell.home, first, 300)
    second = spell.run("true", machine_type="small", pip=(str(make_wheel(tmp_path, "tiny")),)).environment
    spell.client.server.stop()  # whatever it does in the background is done when it has ended
    wait_for(lambda: not spell.home.socket.exists(), "the end of the server")
    assert environments(spell.home) == {first, second}


def test_f35_a_pass_that_failed_is_made_up_for(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    spell = make_spell(config=f"{SMALL}[limits]\nenvironments_gb = 0.000001\n")
    unused = spell.run("true", machine_type="small").environment
    grow_old(spell.home, unused, 3)
    obstacle = lock_path(spell.home.environments, str(unused))
    obstacle.symlink_to(obstacle.name)
    newest = spell.run("true", machine_type="small", pip=(str(make_wheel(tmp_path, "tiny")),)).environment
    wait_for(lambda: "quota: a pass failed" in spell.home.server_log.read_text(), "the failure")
    assert environments(spell.home) == {unused, newest}
    obstacle.unlink()
    wait_for(lambda: environments(spell.home) == {newest}, "the unused environment goes")


def python(environment: Environment, code: str) -> str:
    command = [environment.path / "bin" / "python", "-I", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_f35_the_least_recently_used_goes_first(tmp_path: Path, mode: str) -> None:
    """Also where nothing can be linked, so that each has files of its own; and what is in use counts first."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    home = Home(tmp_path / "home")
    home.create()
    made = Environments(home, clean | {"UV_LINK_MODE": mode, "PIP_CONFIG_FILE": os.devnull})
    built = []
    for age, name in enumerate(("first", "second", "third", "fourth")):
        wheel = make_wheel(tmp_path, name, extra={"large.txt": name * 200_000})
        asked = EnvironmentRequest("", (str(wheel),), ())
        built.append(made.ensure(asked, tmp_path / "build.log", lambda: False))
        assert python(built[-1], f"import {name}; print({name}.VERSION)") == "1.0"
        grow_old(home, built[-1].key, age + 1)
    in_use = {built[3].key}
    room = Limit(2_900_000, time.time())  # for two of them, whether their big file is linked or not

    removed = made.gc(in_use, 1e10, dry_run=True, limit=room)
    cached = ["packages in uv's cache"] if mode == "copy" else []  # linked ones are in use until the environments go
    assert [item.what for item in removed] == [*(f"environment {built[index].key}" for index in (1, 2)), *cached]
    assert len(environments(home)) == 4
    gone = made.gc(in_use, 1e10, dry_run=False, limit=room)
    assert [item.kind for item in gone] == ["environment", "environment", "package"], "and their packages in uv's cache"
    assert environments(home) == {built[0].key, built[3].key}
    young = Limit(0, time.time() - 1.5 * DAY_S)
    assert made.gc(in_use, 1e10, dry_run=False, limit=young) == []
    assert made.get(built[0].key) == built[0]
    assert made.gc(in_use, 1e10, dry_run=False, limit=Limit(0, time.time()))[0].what.endswith(built[0].key)
    assert environments(home) == in_use
