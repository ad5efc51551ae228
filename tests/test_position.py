"""How far a follower has come, as client and server write it."""

from __future__ import annotations

import pytest

from orchestrator import Position


@pytest.mark.parametrize("position", [Position.START, Position.END, Position(3, 1 << 40, 7), Position(log=5)])
def test_what_is_written_is_read(position: Position) -> None:
    assert Position.parse(str(position)) == position


def test_the_text_is_what_the_api_has_always_had() -> None:
    assert str(Position(12, 3400, 56)) == "12.3400.56"
    assert Position.parse("") == Position.START == Position(0, 0, 0)
    assert Position.parse("12.3400.56") == Position(event=12, log=3400, build=56)


def test_the_end_is_behind_everything() -> None:
    last = (1 << 63) - 1
    assert str(Position.END) == f"{last}.{last}.{last}"


@pytest.mark.parametrize("text", ["0", "1.2", "1.2.3.4", "a.b.c", "1.-2.3", "1..3", "0.0.0x", " "])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a position"):
        Position.parse(text)
