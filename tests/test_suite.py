"""The suite itself: what kind a test is, who runs beside whom, and what becomes of tests that are run again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kinds import kind_of

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("marks", "fixtures", "kind"),
    [
        ([], [], "unit"),
        (["parametrize", "skipif"], ["tmp_path", "repo"], "unit"),
        ([], ["tmp_path", "make_spell"], "server"),
        ([], ["make_shared"], "server"),
        ([], ["docker_spell", "make_spell"], "engine"),
        (["engine"], ["make_spell"], "engine"),
        (["torch"], ["docker_spell"], "torch"),
        (["unit"], ["engine"], "unit"),
    ],
)
def test_the_kind_comes_of_fixtures_and_a_mark_overrides_it(marks: list[str], fixtures: list[str], kind: str) -> None:
    assert kind_of(marks, fixtures) == kind


def test_nothing_is_of_two_kinds() -> None:
    with pytest.raises(pytest.UsageError, match="one kind, not engine and unit"):
        kind_of(["engine", "unit"], [])


def run_pytest(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a file with this text, with the hooks of our `conftest.py`."""
    folder.joinpath("test_it.py").write_text(text)
    folder.joinpath("pytest.ini").write_text("[pytest]\nmarkers =\n    unit\n    server\n    engine\n    torch\n")
    command = [sys.executable, "-m", "pytest", "-p", "kinds", "-p", "reruns", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(TESTS), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


KINDS_OF_TESTS = """
import kinds, pytest

@pytest.fixture
def make_spell():
    kinds.allow("server")

def test_nothing(): pass

def test_fixture(make_spell): pass

@pytest.mark.server
def test_marked(): kinds.allow("server")

@pytest.mark.engine
def test_more_than_it_needs(): kinds.allow("server")

def test_liar(): kinds.allow("server")

@pytest.mark.unit
def test_bold_liar(make_spell): pass
"""


def test_a_test_that_uses_more_than_its_kind_fails(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, KINDS_OF_TESTS, "-rfE").stdout
    assert "1 failed, 4 passed, 1 error" in said, said
    assert "FAILED test_it.py::test_liar - Failed: a test marked as unit uses what only tests of kind server" in said
    assert "ERROR test_it.py::test_bold_liar" in said


def test_marks_select(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, KINDS_OF_TESTS, "-m", "server", "--collect-only", "-q").stdout
    assert said.splitlines()[:2] == ["test_it.py::test_fixture", "test_it.py::test_marked"], said


GROUPS = """
import os, pathlib, pytest

@pytest.fixture(scope="module", params=["x", "y"])
def variant(request): return request.param

@pytest.fixture(scope="module")
def shared(): return os.getpid()

@pytest.mark.parametrize("n", range(10))
def test_variant(variant, n): write(variant)

@pytest.mark.parametrize("n", range(20))
def test_shared(shared, n): write("shared")

@pytest.mark.parametrize("n", range(40))
def test_free(n): write("free")

def write(name): pathlib.Path(f"{name}-{os.getpid()}-{os.urandom(8).hex()}").touch()
"""


def test_what_shares_a_fixture_runs_in_one_process(tmp_path: Path) -> None:
    options = ("-n", "3", "--dist", "loadgroup", "--no-loadscope-reorder")
    done = run_pytest(tmp_path, GROUPS, *options)
    assert "80 passed" in done.stdout, done
    found = [path.name.split("-") for path in tmp_path.iterdir() if path.name.count("-") == 2]
    where = {name: {process for other, process, _ in found if other == name} for name in ("x", "y", "shared", "free")}
    assert len(found) == 80
    assert [len(where[name]) for name in ("x", "y", "shared")] == [1, 1, 1]
    assert len(where["free"]) > 1


FLAKES = """
import pathlib, pytest

@pytest.mark.parametrize("n", range(6))
def test_it(n):
    been = pathlib.Path(f"been-{n}")
    if n < 4 and not been.exists():
        been.touch()
        raise AssertionError
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
@pytest.mark.parametrize(("most", "code"), [("4", 0), ("3", 1)])
def test_too_many_flakes_fail_and_each_is_named(tmp_path: Path, workers: list[str], most: str, code: int) -> None:
    done = run_pytest(tmp_path, FLAKES, "--reruns", "1", "--most-reruns", most, *workers)
    assert done.returncode == code, done
    assert "6 passed, 4 rerun" in done.stdout, done
    named = done.stdout.partition("= tests that were run again =")[2]
    assert [n for n in range(6) if f"test_it.py::test_it[{n}]" in named] == [0, 1, 2, 3]
    assert ("4 tests were run again, 3 may" in named) == bool(code)


def test_flakes_without_a_limit_are_named_only(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, FLAKES, "--reruns", "1")
    assert done.returncode == 0 and "tests that were run again" in done.stdout, done


def test_a_run_without_flakes_says_nothing_of_them(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "def test_it(): pass\n", "--reruns", "1", "--most-reruns", "0")
    assert done.returncode == 0 and "run again" not in done.stdout, done
