"""How the code hangs together: imports point one way, nothing grows too long, the command line starts light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import BIN, Spell

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "orchestrator"
MODULE_LINES, FUNCTION_LINES = 400, 60
SHORT_FUNCTION_LINES, SHORT_SHARE = 30, 0.9
HEAVY = [
    "alembic",
    "fastapi",
    "httpx",
    "psutil",
    "pydantic",
    "rich",
    "sqlalchemy",
    "starlette",
    "torch",
    "uvicorn",
    "yaml",
]
VAGUE = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}


def modules() -> list[Path]:
    """Every module of ours that ships."""
    written = [*PACKAGE.rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]
    return sorted(path for path in written if "migrations" not in path.parts)


def functions(path: Path) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Every function of a module, and its lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, (node.end_lineno or 0) - node.lineno + 1


def test_imports_point_one_way(tmp_path: Path) -> None:
    command = [str(BIN / "lint-imports"), "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_module_is_too_long() -> None:
    long = {str(path): lines for path in modules() if (lines := len(path.read_text().splitlines())) > MODULE_LINES}
    assert long == {}


def test_no_function_is_too_long() -> None:
    found = [(f"{path}:{node.name}", lines) for path in modules() for node, lines in functions(path)]
    assert [item for item in found if item[1] > FUNCTION_LINES] == []
    short = sum(lines <= SHORT_FUNCTION_LINES for _, lines in found)
    assert short / len(found) >= SHORT_SHARE


def test_an_import_inside_a_function_has_its_reason_beside_it() -> None:
    found = [
        f"{path}:{inner.lineno}"
        for path in modules()
        for node, _ in functions(path)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
        and "  # " not in path.read_text().splitlines()[inner.lineno - 1]
    ]
    assert found == []


def test_modules_are_named_after_nouns() -> None:
    assert [path for path in modules() if path.stem in VAGUE] == []


def test_every_module_says_what_it_is() -> None:
    without = [
        path for path in modules() if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert without == []


# -- what a command loads ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home with a run."""
    spell = make_shared("architecture")
    spell.run("true")
    return spell


def loaded(spell: Spell, *words: str) -> set[str]:
    """The modules that a command loads, as Python tells with -X importtime; the server is one that runs already."""
    command = [sys.executable, "-X", "importtime", str(BIN / "spell"), *words]
    done = subprocess.run(command, env=spell.env, cwd=spell.cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def packages(names: set[str]) -> set[str]:
    """The top packages of these modules."""
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["ps"], ["ps", "-v"], ["ps", "--json"], ["info", "1"], ["logs", "1"], ["ls"], ["run", "-f", "true"]],
)
def test_commands_load_nothing_heavy(spell: Spell, words: list[str]) -> None:
    names = loaded(spell, *words)
    assert "click" in packages(names)
    assert packages(names) & set(HEAVY) == set()
    ours = {name for name in names if name.startswith("orchestrator.")}
    assert not any(
        name.startswith(("orchestrator.server", "orchestrator.store", "orchestrator.executors")) for name in ours
    )


def test_help_loads_next_to_nothing(spell: Spell) -> None:
    names = loaded(spell, "--help")
    assert packages(names) & {"http", "email", "asyncio", "ssl", "tarfile", "importlib_metadata"} == set()
    assert "orchestrator.client.client" not in names
    names = loaded(spell, "ps")
    assert (
        not {"orchestrator.capture.snapshot", "orchestrator.spec.jobfile", "orchestrator.cli.output.progress"} & names
    )
