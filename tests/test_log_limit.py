"""Logs that grow beyond their limit, and big ones: the run goes on, the disk and the server's memory are safe."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import Spell

LIMIT_BYTES = 1 << 20
SLACK_BYTES = 128 << 10
GROWTH_BYTES = 48 << 20
# numbered lines, as fast as Python can write them
FLOOD = "python -c \"import sys; [sys.stdout.write(f'line {i:09}\\n') for i in range({lines})]\""


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home whose logs may take a mebibyte."""
    return make_shared(config="[limits]\nlog_mb = 1\n")


def held(path: Path) -> int:
    """The room that a file takes, in bytes."""
    return path.stat().st_blocks * 512


def check(spell: Spell, number: int, lines: int) -> None:
    """Head and tail of a numbered log are there, and a line that says how much is not."""
    assert held(spell.home.log(number)) <= LIMIT_BYTES + SLACK_BYTES
    assert spell.home.log(number).stat().st_size == lines * 15  # offsets are what they were
    for verb in (["logs", str(number)], ["logs", "-f", str(number)]):
        said = spell(*verb)
        assert said.code == 0, said
        text = said.out
        assert text.startswith("line 000000000\nline 000000001\n") and text.endswith(f"line {lines - 1:09}\n")
        assert "\0" not in text and len(text) < LIMIT_BYTES + SLACK_BYTES
        (marker,) = [line for line in text.splitlines() if line.startswith("--- ")]
        missing = int(marker.split()[1])
        assert len(text) - len(marker) - 2 + missing == lines * 15
    assert spell("logs", "-n", "2", str(number)).out == f"line {lines - 2:09}\nline {lines - 1:09}\n"
    notices = [event.text for event in spell.client.runs.events(str(number)) if event.kind == "notice"]
    assert any("grew beyond its limit" in text for text in notices), notices


def test_f23_a_log_that_grows_too_long_loses_its_middle(spell: Spell) -> None:
    run = spell.run(FLOOD.replace("{lines}", "2000000"))
    assert (run.state, run.exit_code) == ("complete", 0)
    check(spell, run.number, 2_000_000)


def test_f23_times_after_what_is_not_kept(spell: Spell) -> None:
    """Lines behind the hole have their own times, not those of what was there."""
    flood = FLOOD.replace("{lines}", "500000")
    number = spell.run(f"{flood}\nsleep 3; echo the last").number
    shown = spell("logs", "-t", str(number)).out.splitlines()
    assert shown[-1].endswith(" the last")
    assert shown[-1] == spell("logs", "-t", "-n", "1", str(number)).out.strip()


def test_f23_while_it_is_written_it_takes_little_room(spell: Spell) -> None:
    number = spell.cast("yes spell & sleep 1000")
    most = 0
    spell.says(number, b"spell")
    log = spell.home.log(number)
    while log.stat().st_size < 400 << 20:
        most = max(most, held(log))
        assert spell.client.runs.get(str(number)).state not in ("failed", "complete")
    spell.client.runs.stop(str(number))
    assert spell.ended(number).state == "stopped"
    assert most < 300 << 20
    assert held(spell.home.log(number)) <= LIMIT_BYTES + SLACK_BYTES


def test_f23_a_log_below_its_limit_is_whole(spell: Spell) -> None:
    run = spell.run("head -c 900000 /dev/zero | tr '\\0' x")
    assert spell("logs", str(run.number)).out == "x" * 900_000


def test_f23_a_gigabyte_takes_no_memory_of_the_server(make_spell: Callable[..., Spell]) -> None:
    spell = make_spell(config="[limits]\nlog_mb = 2048\n")
    spell.run("true")
    server = psutil.Process(spell.server_pid)
    before = server.memory_info().rss
    run = spell.run("yes 'a line of some eighty bytes, as training programs like to write them' | head -c 1G")
    assert run.state == "complete"
    most = before
    with spell.popen("logs", "-f", "latest") as follower:
        assert follower.stdout
        for _ in range(150):
            assert follower.stdout.read(1 << 20)
            most = max(most, server.memory_info().rss)
        follower.kill()
    with spell.popen("logs", "latest", stdout=subprocess.PIPE) as reader:
        assert reader.stdout
        count = 0
        while chunk := reader.stdout.read(1 << 20):
            count += len(chunk)
            most = max(most, server.memory_info().rss)
    assert count == 1 << 30
    assert most - before < GROWTH_BYTES, f"{(most - before) >> 20} MiB"
