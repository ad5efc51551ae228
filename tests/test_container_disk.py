"""F38 with containers: the disk of the home becomes full, in each phase of a run. See `test_disk_full`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Spell, wait_for
from containers import config, none_left
from engines import containers_of
from test_disk_full import (
    MIB,
    WRITERS,
    Disk,
    failed_for_want_of_room,
    fill_while_outputs_are_saved,
    goes_on,
    patiently,
    small_disk,
)
from wheels import make_wheel

from orchestrator.errors import DiskFull

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with small_disk(tmp_path_factory.mktemp("small") / "disk") as made:
        yield made


@pytest.fixture(scope="module")
def shared(disk: Disk, make_shared: Callable[..., Spell]) -> Spell:
    return make_shared(root=disk.place / "home", config=config(disk.place.parent))


@pytest.fixture
def spell(shared: Spell, disk: Disk) -> Iterator[Spell]:
    """A home on the small disk, which all tests share. After each its server is up, and it goes on."""
    assert shared.run("echo before > file").state == "complete"
    server = shared.server_pid
    yield shared
    with contextlib.suppress(FileNotFoundError):
        disk.make_room()
    assert shared.server_pid == server, "the server stayed up"
    goes_on(shared)
    none_left(shared)


def test_f38_while_the_environment_is_built(spell: Spell, disk: Disk, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "fat", extra={"fat.txt": os.urandom(6 * MIB).hex()})
    disk.fill(3 * MIB)
    failed_for_want_of_room(spell, patiently(lambda: spell.cast("true", pip=(str(wheel),))))
    none_left(spell)
    assert not [path for path in spell.home.environments.rglob(".building-*") if path.is_dir()], "nothing of it is left"
    disk.make_room()
    assert spell.run("python -c 'import fat'", pip=(str(wheel),)).state == "complete"


@pytest.mark.parametrize("name", WRITERS)
def test_f38_while_the_command_writes(spell: Spell, disk: Disk, name: str) -> None:
    run = failed_for_want_of_room(spell, spell.cast(WRITERS[name]))
    assert run.exit_code == (7 if name == "last words" else 1)
    kept = spell.home.run_dir(run.number) / "big"
    assert kept.stat().st_size > MIB, "what it could write is kept"
    assert spell("ps").code == 0
    disk.remove(kept.parent)


def test_f38_while_the_log_is_written(spell: Spell, disk: Disk) -> None:
    run = failed_for_want_of_room(spell, spell.cast("echo first; exec yes 'a line of some length'"))
    assert run.exit_code == 1
    log = spell.log(run.number)
    assert len(log) > MIB and log.startswith(b"first\na line of some length\n")
    spell.home.log(run.number).write_bytes(b"")


def test_f38_while_outputs_are_saved(spell: Spell, disk: Disk) -> None:
    left = fill_while_outputs_are_saved(spell, disk)
    assert left.keys() & {"a", "b"} and "c" in left


def test_f38_while_it_is_started(spell: Spell, disk: Disk) -> None:
    """Whatever room is left, from none to enough: it runs, or the disk is full; nothing in between, nothing left."""
    ended = []
    for pages in (0, 4, 8, 12, 16, 24, 32, 64):
        disk.fill(pages * os.sysconf("SC_PAGE_SIZE"))
        number = 0
        with contextlib.suppress(DiskFull):
            number = patiently(lambda: spell.cast("exit 3"))
        if number:
            wait_for(lambda number=number: containers_of(spell.home) or spell.stored(number)[0] != "building", "a move")
        disk.make_room()
        if number:
            run = spell.ended(number)
            assert (run.reason, run.exit_code) in (("exited_nonzero", 3), ("disk_full", None), ("disk_full", 3)), run
            ended.append(run.reason)
        none_left(spell)
    assert "exited_nonzero" in ended, "with room enough it runs"
