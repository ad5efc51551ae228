"""How the code hangs together: imports point one way, nothing grows too long, the command line starts light."""

from __future__ import annotations

import ast
import io
import itertools
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
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
    "wcwidth",
    "yaml",
]
OF_THE_SERVER = tuple(
    f"orchestrator.{room}"
    for room in (
        "config",
        "controllers",
        "data",
        "engine",
        "environments",
        "executors",
        "images",
        "lifecycle",
        "server",
        "service",
        "store",
        "supervisor",
        "telemetry",
    )
)
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


def test_routes_are_named_as_the_nouns_of_the_service() -> None:
    routes = {path.stem for path in (PACKAGE / "server" / "routes").glob("*.py")} - {"__init__"}
    assigned = re.findall(r"^        self\.(\w+) = ", (PACKAGE / "service" / "service.py").read_text(), re.MULTILINE)
    assert routes | {"exec"} == set(assigned)  # a WebSocket, which has a module of its own
    assert [noun for noun in assigned if not (PACKAGE / "service" / f"{noun}.py").exists()] == []


def test_every_verb_gets_the_person_who_asks() -> None:
    written = "".join(path.read_text() for path in (PACKAGE / "server").rglob("*.py"))
    calls = re.findall(r"\bservice\.\w+\.\w+(?:\(|,\s+)(\w*)", written)
    assert len(calls) > 60
    assert set(calls) == {"who"}


@pytest.mark.parametrize(
    ("call", "only"),
    [
        (r"\b_?(store|searches|workflows)\.find\(", "service/access.py"),
        (r"\bingest_metrics\(", "service/metrics.py"),
        (r"\.(metrics_after|metric_summaries|last_metrics)\(", "service/metrics.py"),
    ],
)
def test_what_is_done_in_one_place(call: str, only: str) -> None:
    """References become numbers in one module, and metrics are ingested before they are read in one."""
    written = [path for room in ("server", "controllers", "service") for path in (PACKAGE / room).rglob("*.py")]
    found = {str(path.relative_to(PACKAGE)) for path in written if re.search(call, path.read_text())}
    assert found == {only}


def test_no_module_is_too_long() -> None:
    long = {str(path): lines for path in modules() if (lines := len(path.read_text().splitlines())) > MODULE_LINES}
    assert long == {}


def test_no_function_is_too_long() -> None:
    found = [(f"{path}:{node.name}", lines) for path in modules() for node, lines in functions(path)]
    assert [item for item in found if item[1] > FUNCTION_LINES] == []
    short = sum(lines <= SHORT_FUNCTION_LINES for _, lines in found)
    assert short / len(found) >= SHORT_SHARE


# -- late imports -----------------------------------------------------------------------------------------------------


def hidden_imports(source: str) -> list[int]:
    """The lines where a module is imported by a function call, which type checker, import-linter and reader do not see."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        node.lineno for node in calls if ast.unparse(node.func).rpartition(".")[2] in {"import_module", "__import__"}
    ]


def unexplained_imports(source: str) -> list[int]:
    """The lines of imports inside functions without a reason: a comment on the line, or just above it and those imports
    that it stands with, which says how many ms it spares, or that the module is optional or may not be installed."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    alone = {line for line, token in comments.items() if token.line.lstrip().startswith("#")}
    return sorted(
        late.lineno
        for block in late_imports(ast.parse(source))
        for late in block
        if not is_reason(
            " ".join(comments[line].string for line in lines_about(late, block[0], alone) if line in comments)
        )
    )


def late_imports(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """All imports inside functions, those that follow each other together."""
    bodies = {
        id(body): body
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        for _, body in ast.iter_fields(inner)
        if isinstance(body, list)
    }
    for body in bodies.values():
        for is_import, block in itertools.groupby(body, lambda node: isinstance(node, ast.Import | ast.ImportFrom)):
            if is_import:
                yield list(block)


def lines_about(late: ast.stmt, first: ast.stmt, alone: Container[int]) -> Iterator[int]:
    """The lines of an import, and those of the comment above the first of its block; `alone` are lines of comments only."""
    yield from range(late.lineno, (late.end_lineno or late.lineno) + 1)
    yield from itertools.takewhile(lambda line: line in alone, range(first.lineno - 1, 0, -1))


def is_reason(comment: str) -> bool:
    """Whether a comment gives a reason for a late import. A cycle is none: it is to be cut."""
    is_given = re.search(r"\d ms\b|\boptional\b|\bmay not be (installed|there)\b", comment)
    return bool(is_given) and not re.search(r"\b(cycle|cyclic|circular)\b", comment)


def test_no_import_is_hidden() -> None:
    shown = [
        path for path in modules() if path != PACKAGE / "__init__.py"
    ]  # the lazy face: test_public.py holds its table
    assert [f"{path}:{line}" for path in shown for line in hidden_imports(path.read_text())] == []


def test_late_imports_have_a_measured_reason() -> None:
    assert [f"{path}:{line}" for path in modules() for line in unexplained_imports(path.read_text())] == []


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("import json  # 7 ms: few runs have secrets", []),
        ("# 117 ms: a server without an engine never needs it\n    import docker", []),
        ("# 117 ms, and what\n    # it spares\n    import docker\n    from docker import errors", []),
        ("from a import (  # 2.5 ms: seldom\n        b,\n    )", []),
        ("import ctypes  # may not be installed", []),
        ("if x:\n        import torch  # optional", []),
        ("import json", [2]),
        ("import json  # loads slowly", [2]),
        ("import json  # a cycle: 7 ms", [2]),
        ("# 7 ms\n\n    import json", [4]),
        ("import json  # 7 ms\n    import docker", [3]),
        ("x = 1  # 7 ms\n    import json", [3]),
        ("try:\n        import json\n    except ImportError:\n        import docker", [3, 5]),
        ("for x in y:\n        pass\n    else:\n        import json", [5]),
        ("match x:\n        case 1:\n            import json", [4]),
        ("def inner():\n        import json", [3]),
        ("class Inner:\n        def inner(self):\n            import json", [4]),
    ],
)
def test_the_reason_of_a_late_import_is_looked_for(body: str, lines: list[int]) -> None:
    assert unexplained_imports(f"def late():\n    {body}\n") == lines
    assert unexplained_imports(f"async def late():\n    {body}\n") == lines


def test_only_imports_inside_functions_are_late() -> None:
    assert unexplained_imports("import json\nif TYPE_CHECKING:\n    import docker\nclass Late:\n    import os\n") == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import json", []),
        ("from importlib import metadata\nmetadata.version('json')", []),
        ("import importlib\nx = importlib.import_module('json')", [2]),
        ("from importlib import import_module\nimport_module('json')", [2]),
        ("def late():\n    return importlib.import_module(NAMES[0]).Bar()", [2]),
        ("__import__('json')", [1]),
    ],
)
def test_hidden_imports_are_found(source: str, lines: list[int]) -> None:
    assert hidden_imports(source) == lines


def cycle(package: str) -> list[str]:
    """Modules of a package that import each other in a circle, inside functions or not; [] where there are none."""
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    try:
        TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    assert cycle("orchestrator") == []


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        (
            "late_circle",
            "def late():\n    from late_circle import first  # 7 ms",
            {"late_circle.first", "late_circle.second"},
        ),
        (
            "typed_circle",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from typed_circle import first",
            set(),
        ),
    ],
)
def test_circles_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, found: set[str]
) -> None:
    (tmp_path / name).mkdir()
    for module, text in ("__init__", ""), ("first", f"from {name} import second"), ("second", source):
        (tmp_path / name / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert set(cycle(name)) == found


# -- names and words --------------------------------------------------------------------------------------------------


def test_modules_are_named_after_nouns() -> None:
    assert [path for path in modules() if path.stem in VAGUE] == []


def test_every_module_says_what_it_is() -> None:
    without = [
        path for path in modules() if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert without == []


def listed(package: Path) -> list[str]:
    """The modules and packages that the docstring of a package lists: `name  what it does` or `name/  what it does`."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    return re.findall(r"^([a-z_]+/?) {2,}\S", text, re.MULTILINE)


def contents(package: Path) -> list[str]:
    """The modules in the folder of a package, and the packages with a `/`."""
    folders = [f"{path.name}/" for path in package.iterdir() if path.is_dir() and list(path.glob("*.py"))]
    return sorted([*folders, *(path.stem for path in package.glob("*.py") if path.stem != "__init__")])


PACKAGES = [path.parent for path in modules() if path.name == "__init__.py" and PACKAGE in [path.parent, *path.parents]]


@pytest.mark.parametrize("package", PACKAGES, ids=[str(path.relative_to(PACKAGE.parent)) for path in PACKAGES])
def test_every_package_lists_its_modules(package: Path) -> None:
    """Each once, and none that does not exist: the listings alone tell a reader what is where."""
    assert sorted(listed(package)) == contents(package)


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
    assert {name for name in names if name.startswith(OF_THE_SERVER)} == set()


def test_help_loads_next_to_nothing(spell: Spell) -> None:
    names = loaded(spell, "--help")
    assert packages(names) & {"http", "email", "asyncio", "ssl", "tarfile", "importlib_metadata"} == set()
    assert "orchestrator.client.client" not in names
    names = loaded(spell, "ps")
    assert (
        not {"orchestrator.capture.snapshot", "orchestrator.spec.jobfile", "orchestrator.cli.output.progress"} & names
    )
