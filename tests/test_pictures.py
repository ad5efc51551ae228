"""The picture of the README shows what its script records, and commands that exist."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import pytest

from orchestrator.cli.main import spell as group

DOCS = Path(__file__).parents[1] / "docs"
PICTURE = DOCS / "terminal.svg"
SESSION: list[str] = runpy.run_path(str(DOCS / "terminal.py"))["SESSION"]


def terminal_lines() -> list[str]:
    """The lines of the terminal that the picture shows."""
    rows: dict[float, list[tuple[float, str]]] = {}
    for text in ET.parse(PICTURE).iter("{http://www.w3.org/2000/svg}text"):
        if text.get("clip-path"):  # it is in the window, not on its frame
            rows.setdefault(float(text.attrib["y"]), []).append((float(text.attrib["x"]), text.text or ""))
    lines = ["".join(words for _, words in sorted(row)) for _, row in sorted(rows.items())]
    return [line.replace("\xa0", " ").rstrip() for line in lines]


def test_it_is_of_the_session_that_is_recorded() -> None:
    lines = terminal_lines()
    assert [line.removeprefix("$ ") for line in lines if line.startswith("$ ")] == SESSION
    assert {"💫 Casting spell #2…", "✨ Mounting… done", "🎉 Run 2 complete"} <= set(lines)


@pytest.mark.parametrize("line", SESSION)
def test_every_command_in_it_can_be_typed(line: str) -> None:
    _, verb, *words = shlex.split(line)
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    command.make_context(verb, words)  # raises on what does not exist


def test_it_loads_nothing() -> None:
    assert re.findall(r"https?://[\w.]+", PICTURE.read_text()) == ["http://www.w3.org", "https://www.textualize.io"]
