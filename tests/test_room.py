"""What is kept free on the disk of the home."""

from __future__ import annotations

from collections.abc import Callable

from conftest import Spell


def test_no_run_is_cast_when_the_disk_has_too_little(make_spell: Callable[..., Spell]) -> None:
    """Refused before there is a run, with the way out."""
    spell = make_spell(config="[limits]\nfree_gb = 1000000\n")
    told = spell("run", "true")
    assert told.code == 1 and "MiB left" in told.err and "spell gc" in told.err, told
    assert spell.client.runs() == []
