"""How the code is built: import contracts, sizes, and what must not be loaded where it has to be fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BIN, Spell

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])
SERVER_SIDE = {"fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "pydantic", "psutil", "yaml", "torch"}


def test_import_contracts() -> None:
    done = subprocess.run([BIN / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > 60]
    assert long == []


def _loaded(code: str, spell: Spell) -> set[str]:
    """Top-level packages that are loaded after this."""
    code += "; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", "import sys; " + code], env=spell.env, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split()[-10_000:])


@pytest.mark.parametrize(
    ("words", "more"), [(["--help"], {"httpx", "rich"}), (["ps"], set()), (["run", "--help"], set())]
)
def test_commands_load_little(spell: Spell, words: list[str], more: set[str]) -> None:
    assert spell("ps").code == 0  # the server runs
    call = (
        f"sys.argv[1:] = {words}; from orchestrator.cli.main import main\ntry: main()\nexcept SystemExit: pass\nprint()"
    )
    loaded = _loaded(f"exec({call!r})", spell)
    assert "click" in loaded
    assert loaded & (SERVER_SIDE | more) == set()
