"""The public face, `import orchestrator`: what it offers, what it loads, and what it says inside a run."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Spell

import orchestrator
from orchestrator import RunSpec, errors, records, runtime

FACE = Path(orchestrator.__file__)


def twin() -> dict[str, str]:
    """Each name that type checkers see, and the module that it comes from."""
    block = next(node for node in ast.parse(FACE.read_text()).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    return {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}


def test_type_checkers_see_what_can_be_loaded() -> None:
    assert {*twin(), "__version__"} == set(orchestrator.__all__)
    assert len(orchestrator.__all__) == len(set(orchestrator.__all__))
    table = {name: f"orchestrator.{orchestrator._MODULES.get(name, 'errors')}" for name in twin()}
    assert table == twin()
    assert set(orchestrator._MODULES) <= set(twin())


@pytest.mark.parametrize("name", orchestrator.__all__)
def test_every_name_can_be_loaded(name: str) -> None:
    """In a Python of its own: what one name needs is not there because of another."""
    code = f"from orchestrator import {name}; import orchestrator; assert orchestrator.{name} is {name}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", [name for name in orchestrator.__all__ if name != "__version__"])
def test_every_name_is_that_of_its_module(name: str) -> None:
    value = getattr(orchestrator, name)
    assert value.__module__ == twin()[name]
    assert value is getattr(sys.modules[twin()[name]], name)


def test_every_error_and_all_of_the_runtime_are_public() -> None:
    assert {kind.__name__ for kind in errors.BY_CODE.values()} <= set(orchestrator.__all__)
    functions = {name for name, _ in inspect.getmembers(runtime, inspect.isfunction)}
    offered = {name for name in functions if not name.startswith("_")}
    assert offered == set(orchestrator._IN_RUNS)


def test_names_are_listed_before_they_are_loaded() -> None:
    code = "import orchestrator; print(*(set(orchestrator.__all__) - set(dir(orchestrator))))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "\n"


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Cleint'"):
        _ = orchestrator.Cleint  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'Cleint'"):
        exec("from orchestrator import Cleint", {})
    assert orchestrator.records is records, "submodules are found as ever"


def test_it_loads_nothing_by_itself() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules); import orchestrator; print(*set(sys.modules) - before)"
    command = [sys.executable, "-I", "-S", "-c", code, str(FACE.parents[1])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["orchestrator"]


def test_a_run_that_lacks_another_package_is_told_so(tmp_path: Path) -> None:
    """Only what is missing of ours is explained by the run."""
    code = (
        "import sys; sys.modules['h11'] = None\n"
        "try:\n    from orchestrator import Client\nexcept ModuleNotFoundError as error:\n    print(error.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "h11\n"


# -- inside a run -----------------------------------------------------------------------------------------------------

INSIDE = """
import orchestrator, sys
from orchestrator import send_metric, checkpoint_dir, on_stop, __version__
from orchestrator import runtime
from orchestrator.runtime import send_metric as the_same
assert send_metric is the_same is runtime.send_metric
send_metric("loss", 0.5, 3)
for name in NAMES:
    try:
        getattr(orchestrator, name)
    except AttributeError as error:
        print(name, error)
        try:
            exec("from orchestrator import " + name)
        except ImportError as error:
            print(name, error)
"""

INTROSPECTION = """
import inspect, pickle, types
import orchestrator
assert not hasattr(orchestrator, "Client") and getattr(orchestrator, "RunSpec", None) is None
assert not hasattr(orchestrator, "Cleint")
found = dict(inspect.getmembers(orchestrator))
exec("from orchestrator import *")
assert send_metric is found["send_metric"]
def connect(): pass
connect.__module__ = None  # pickle then looks for it in every module
assert pickle.loads(pickle.dumps(connect)) is connect
print(*orchestrator.__all__)
print(*sorted(set(NAMES) & set(dir(orchestrator)) & set(found)))
"""


THERE = {"send_metric", "checkpoint_dir", "on_stop", "__version__"}


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that all tests share."""
    return make_shared()


def test_inside_a_run_there_is_the_runtime_and_one_sentence_about_the_rest(spell: Spell) -> None:
    run = spell.run(f"exec python - <<'END'\nNAMES = {orchestrator.__all__}\n{INSIDE}\nEND")
    said = spell.log(run.number).decode()
    assert run.state == "complete", said
    words = (
        "is not available inside a run, where orchestrator has only send_metric, checkpoint_dir, on_stop. "
        "Use it in a program that runs outside."
    )
    refused = [name for name in orchestrator.__all__ if name not in THERE]
    assert said.splitlines() == [f"{name} {name} {words}" for name in refused for _ in ("as attribute", "imported")]
    (metric,) = spell.client.metrics.list(str(run.number))
    assert (metric.name, metric.value, metric.step) == ("loss", 0.5, 3)


# -- what verbs are given ---------------------------------------------------------------------------------------------


def test_a_run_is_named_by_a_number_or_a_text(spell: Spell) -> None:
    client = spell.client
    number = client.runs.cast(RunSpec("echo x > f")).number
    ended = client.runs.wait(number)
    assert ended.number == number
    assert client.runs.wait(number, 60) == client.runs.wait(str(number), 60)
    assert client.runs.get(number) == client.runs.get(str(number))
    assert [item.kind for item in client.runs.follow(number)] == [item.kind for item in client.runs.follow(str(number))]
    assert client.logs.get(number).read() == b""
    assert [artifact.path for artifact in client.runs.artifacts(number)] == ["f"]
    assert client.compare.diff(number, str(number)).before == number
    assert client.projects.create("numbers", runs=[number, str(number)]).runs == 1
    assert client.archive.add(number).number == client.archive.remove(number).number == number
    with pytest.raises(errors.Conflict):
        client.runs.stop(number)
    with pytest.raises(errors.NotFound, match="There is no run '99999'"):
        client.lineage.get(99999)
    with pytest.raises(errors.NotFound):
        client.workflows.get(1)
    with pytest.raises(errors.NotFound):
        client.searches.get(1)


def test_one_text_is_not_several(spell: Spell) -> None:
    client = spell.client
    number = client.runs.cast(RunSpec("true", labels=("kept",))).number
    for verb in (
        lambda: client.labels.add(number, "label"),
        lambda: client.labels.remove(number, "label"),
        lambda: client.projects.create("letters", runs=str(number)),
        lambda: client.projects.add_runs("letters", str(number)),
        lambda: client.projects.remove_runs("letters", str(number)),
        lambda: client.compare.diff(number, number, "spec"),
        lambda: client.stats.list(str(number)),
        lambda: client.exec.start(number, "ls"),
    ):
        with pytest.raises(errors.InvalidConfig, match="must be a list, not one text"):
            verb()
    assert client.runs.get(number).labels == ["kept"]
    assert "letters" not in [project.name for project in client.projects.list()]


def test_tools_that_look_around_inside_a_run_find_the_runtime(spell: Spell) -> None:
    run = spell.run(f"exec python - <<'END'\nNAMES = {orchestrator.__all__}\n{INTROSPECTION}\nEND")
    said = spell.log(run.number).decode()
    assert run.state == "complete", said
    assert [set(line.split()) for line in said.splitlines()] == [THERE, THERE]


def test_the_version_is_written_once() -> None:
    text = (FACE.parents[1] / "pyproject.toml").read_text()
    assert orchestrator.__version__ not in [line.partition("=")[2].strip(' "') for line in text.splitlines()]
    assert 'path = "orchestrator/__init__.py"' in text
