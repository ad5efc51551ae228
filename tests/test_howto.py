"""Pages of docs/howto/: each `console` line is typed, in order, in a copy of the project of the page, and ends with 0."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BIN, Spell
from test_docs import blocks

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "docs" / "howto").glob("*.md") if path.name != "README.md")
PROJECTS = ROOT / "tests" / "data" / "howto"


def typed(page: Path) -> list[str]:
    """What a person types on a page: the lines after `$ ` of its console blocks."""
    lines = [line for language, text in blocks(page) if language == "console" for line in text.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_can_be_typed(page: Path, make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    project = Path(shutil.copytree(PROJECTS / page.stem, tmp_path / "project"))
    if (prepare := project / "prepare").exists():  # what cannot lie in this repository, such as a repository
        subprocess.run(["bash", prepare], cwd=project, check=True, capture_output=True, timeout=60)
        prepare.unlink()
    spell = make_spell(cwd=project)
    lines = typed(page)
    assert lines, "the page shows nothing to type"
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=project,
            env={**spell.env, "PATH": f"{BIN}:{spell.env['PATH']}", "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)


def test_every_page_is_listed() -> None:
    index = (ROOT / "docs" / "howto" / "README.md").read_text()
    assert [page.name for page in PAGES if f"]({page.name})" not in index] == []
    assert sorted(path.name for path in PROJECTS.iterdir()) == [page.stem for page in PAGES]
