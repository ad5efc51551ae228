"""The programs of `examples/` and of `docs/python.md`: each is run, and prints what it says that it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell

from orchestrator import errors
from orchestrator.client.client import Client

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGE = ROOT / "docs" / "python.md"
MOST_LINES = 40
LIMIT_S = 120


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that all examples share."""
    return make_shared()


def printed(spell: Spell, folder: Path, program: Path) -> str:
    """What a program prints, started in this folder."""
    command = [sys.executable, str(program)]
    done = subprocess.run(
        command, cwd=folder, env=spell.env, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def expected(program: str) -> str:
    """What an example says that it prints: the comment at its end."""
    _, _, lines = program.partition("\n# Output:\n")
    assert lines
    return re.sub(r"^# ?", "", lines, flags=re.MULTILINE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(path: Path, spell: Spell, tmp_path: Path) -> None:
    program = path.read_text()
    assert len(program.splitlines()) <= MOST_LINES
    assert printed(spell, tmp_path, path) == expected(program)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


# -- docs/python.md ---------------------------------------------------------------------------------------------------


def program_of(page: str) -> str:
    """The blocks of a page, in their order, as one program."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))


def test_the_page_prints_what_it_says(make_shared: Callable[..., Spell], tmp_path: Path) -> None:
    program = program_of(PAGE.read_text())
    told = re.findall(r"  # → (.*)$", program, re.MULTILINE)
    assert len(told) >= 5
    path = tmp_path / "page.py"
    path.write_text(program)
    assert printed(make_shared("page"), tmp_path, path).splitlines() == told


def test_the_page_draws_the_errors_that_there_are() -> None:
    drawn = re.findall(r"[├└]── ([\w, ]+?)(?:  .*)?$|^(SpellError)$", PAGE.read_text(), re.MULTILINE)
    names = [name.strip() for words in drawn for word in words for name in word.split(",") if name.strip()]
    assert sorted(names) == sorted(kind.__name__ for kind in errors.BY_CODE.values())


def test_the_page_names_every_noun() -> None:
    nouns = [name for name, value in vars(Client).items() if type(value).__name__ == "cached_property"]
    assert len(nouns) > 20
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows == nouns


def test_every_method_that_the_page_names_is_there() -> None:
    client = Client(None, start=False)  # type: ignore[arg-type]  # it is asked nothing
    missing = []
    for noun, cell in re.findall(r"^\| `(\w+)` \| ([^|]*) \|", PAGE.read_text(), re.MULTILINE):
        told = set(re.findall(r"`(\w+)`", cell))
        there = {name for name in dir(getattr(client, noun)) if not name.startswith("_")}
        missing += [f"{noun}.{name}" for name in told ^ there]
    assert missing == []
