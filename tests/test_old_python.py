"""What is imported inside runs works from Python 3.6 on: the runtime, and in containers the supervisor."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BIN, Spell

import orchestrator
from orchestrator.supervisor import old_python

PACKAGE = Path(orchestrator.__file__).parent
OLDEST = (3, 6)
RUNTIME = [PACKAGE / "__init__.py", PACKAGE / "runtime.py"]
LOAD = "from orchestrator.supervisor import container, masking, secrets_pipe, verdict"


def loaded_by_a_container() -> list[Path]:
    """The files of spell that the supervisor in a container loads, the late ones too."""
    code = f"import sys; {LOAD}; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('orchestrator')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=True, capture_output=True, text=True)
    return [Path(path) for path in done.stdout.split()]


IN_RUNS = sorted(
    {*RUNTIME, *PACKAGE.glob("inside/*.py"), PACKAGE / "supervisor/old_python.py", *loaded_by_a_container()}
)


def as_loaded(path: Path) -> ast.Module:
    """A module as an old Python runs it: what only type checkers see is not there."""
    tree = ast.parse(path.read_text(), feature_version=OLDEST)
    if path.parent.name == "supervisor" and path.stem not in ("__init__", "old_python"):
        tree = old_python.bare(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return ast.fix_missing_locations(tree)


@pytest.mark.parametrize("path", IN_RUNS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_it_needs_only_the_standard_library(path: Path) -> None:
    tree = as_loaded(path)
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= {*sys.stdlib_module_names, "orchestrator"}


def test_grammar_and_standard_library_are_those_of_python_3_6(tmp_path: Path) -> None:
    """By vermin, which knows since when Python has what."""
    for path in IN_RUNS:
        (tmp_path / f"{path.parent.name}_{path.name}").write_text(ast.unparse(as_loaded(path)))
    words = ["-t=3.6-", "--eval-annotations", "--violations", "--no-tips", str(tmp_path)]
    done = subprocess.run([BIN / "vermin", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (tmp_path / "new.py").write_text("import os\nos.waitstatus_to_exitcode(0)\n")
    assert subprocess.run([BIN / "vermin", *words], check=False, capture_output=True).returncode == 1, "it would say so"


def _old_pythons() -> list[str]:
    places = [*os.environ["PATH"].split(":"), *map(str, Path.home().glob(".pyenv/versions/3.*/bin"))]
    found = {}
    for version in range(OLDEST[1], sys.version_info.minor):
        for place in places:
            path = shutil.which(f"python3.{version}", path=place)
            if path and "shims" not in path:
                found.setdefault(version, path)
    return list(found.values())


on_old_pythons = pytest.mark.parametrize("interpreter", _old_pythons(), ids=lambda path: Path(path).name)
needs_one = pytest.mark.skipif(not _old_pythons(), reason="no older Python is installed here")


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that all tests share."""
    return make_shared("old")


@needs_one
@on_old_pythons
def test_code_inside_a_run(interpreter: str, spell: Spell) -> None:
    """It is imported in both ways that are documented."""
    code = (
        "from orchestrator.runtime import *; import orchestrator; send_metric('loss', 0.5); print(checkpoint_dir());"
        "from orchestrator import on_stop, send_metric; send_metric('loss', 0.25)"
    )
    run = spell.run(f'{interpreter} -W error -c "{code}"')
    said = spell.log(run.number).decode()
    assert (run.state, said.rpartition("/")[2]) == ("complete", "checkpoints\n"), said
    assert [item.value for item in spell.client.metrics.list(str(run.number))] == [0.5, 0.25]


@needs_one
@on_old_pythons
def test_the_supervisor_in_a_container(interpreter: str) -> None:
    """It can be loaded, and does its work so far as that needs no container."""
    code = f"""
import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})
{LOAD}
masker = masking.Masker(masking.patterns_of([b"secret"]))
said = masker.feed(b"a secret b") + masker.flush()
fields = verdict.verdict_of(lambda: dict(exit_code=0), "/", lambda: 0, only_when_killed=True)
print(container.as_json(dict(fields, said=said.decode())))"""
    done = subprocess.run([interpreter, "-I", "-S", "-B", "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["exit_code"], found["error"], found["said"]) == (0, None, "a *** b")
