"""`spell server …` and `spell machine-types`."""

from __future__ import annotations

from collections.abc import Callable

from conftest import Spell

TYPES = "[machine_types.huge]\ncpus = 9999\n[machine_types.small]\ncpus = 0.5\nmemory_gb = 0.25\n"


def test_start_status_logs_stop(spell: Spell) -> None:
    none = spell("server", "status")
    assert (none.code, none.err.splitlines()[0]) == (1, f"ERROR: No server serves {spell.home.root}.")
    assert "serves" in spell("server", "start").out
    pid = spell.server_pid
    assert spell("server", "start").code == 0
    assert spell("server", "status", "--json").json()["pid"] == pid
    assert "Application startup complete" in spell("server", "logs").out
    assert spell("server", "stop").out == "The server has ended.\n"
    assert spell("server", "stop").code == 1
    assert spell("ps").code == 0, "the next command starts one"
    assert spell.server_pid != pid


def test_machine_types(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config=TYPES)
    listed = {item["name"]: item for item in spell("machine-types", "--json").json()}
    assert listed["huge"]["possible"] is False
    assert listed["small"]["memory_bytes"] == 1 << 28
    assert listed["cpu"]["possible"] is True
    shown = spell("machine-types").out
    assert shown.splitlines()[0].split() == ["NAME", "CPUS", "MEMORY", "GPUS", "FREE", "NOW"]
    assert "never here" in shown
    refused = spell("run", "-t", "huge", "true")
    assert refused.code == 3
    assert "asks for 9999 cores" in refused.err
    warned = spell("run", "-t", "small", "true")
    assert warned.code == 0
    assert "cannot hold a run to it" in warned.err
