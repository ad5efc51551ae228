"""The table of a spec's fields: that it is complete, and that what it says holds."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import Spell

from orchestrator.cli.input.spec import SpecOptions, changes, spec_of
from orchestrator.cli.main import spell as group
from orchestrator.cli.plan import show_plan
from orchestrator.records.casts import CastRecord
from orchestrator.records.plans import PlannedMount, PlanRecord
from orchestrator.service.export_texts import job_file
from orchestrator.spec import jobfile
from orchestrator.spec.fields import BY_KEY, BY_NAME, CODE_KEYS, FIELDS, FileName, joined, redacted_spec
from orchestrator.spec.mounts import Mount
from orchestrator.spec.redaction import MASK, masked
from orchestrator.spec.run import Code, RequirementFile, RunSpec, Source, to_wire

ROOT = Path(__file__).parents[1]
HOW = {
    "dry_run",
    "deps_from_env",
    "file",
    "env_file",
    "force",
    "background",
    "reuse",
    "verbose",
    "json_",
    "save_command",
    "from_file",
    "current_code",
}
"""Options of `spell run` that do not say what the run is."""
FULL = RunSpec(
    command="train :LR:",
    machine_type="gpu",
    cpus=2.5,
    memory_bytes=32 << 30,
    gpus=2,
    gpu_type="a100",
    gpu_memory_bytes=40_000_000_000,
    executor="process",
    mounts=(Mount("runs/2/data.txt", "data.txt"), Mount("uploads/x", "/abs/x")),
    pip=("six", "torch==2.9"),
    requirements=(RequirementFile("r.txt", "six\n"),),
    python="3.12",
    editables=(".", "libs/x[gpu]"),
    frameworks=("pytorch",),
    image="python:3.12-slim",
    apt=("tree",),
    network="none",
    env={"A": "b=c"},
    code=Code("0" * 64, url="https://example.org/code.git", commit="c" * 40),
    source=Source("uv.lock", ("dev",), ("gpu",)),
    description="ü 🎉: x",
    name="a-name_1.0",
    labels=("one", "two words"),
    params={"LR": "0.1"},
    timeout_s=90.0,
    ignore=("*.tmp",),
    retries=3,
    project="jokes",
    stop_conditions=("loss > 10:100",),
    no_output_timeout_s=1800.0,
    notify=("https://example.org/hook",),
    secrets={"TOKEN": "TOKEN", "API_KEY": "KEY"},
    caches="off",
    resume="runs/2/checkpoints",
    checkpoints="output",
)
"""A spec with another value than the default in each field."""


def command_of(verb: str) -> click.Command:
    found = group.get_command(click.Context(group), verb)
    assert found is not None
    return found


def options_of(verb: str) -> dict[str, click.Option]:
    """The options of a verb, by the names under which it gets them."""
    return {str(item.name): item for item in command_of(verb).params if isinstance(item, click.Option)}


# -- complete ---------------------------------------------------------------------------------------------------------


def test_every_field_of_a_spec_has_a_row() -> None:
    assert [field.name for field in FIELDS] == [item.name for item in dataclasses.fields(RunSpec)]
    assert [field.name for field in FIELDS if getattr(FULL, field.name) == getattr(RunSpec("true"), field.name)] == []


def test_every_option_that_says_what_a_run_is_has_a_row() -> None:
    named = [name for field in FIELDS for name in field.options]
    assert len(named) == len(set(named))
    typed = {name: option for name, option in options_of("run").items() if name not in HOW}
    assert {name for option in typed.values() for name in option.opts if name.startswith("--")} == {
        name for name in named if name.startswith("--")
    }
    for name, option in typed.items():
        if name in BY_NAME:
            assert (tuple(option.opts), option.help is not None) == (BY_NAME[name].options, True)


def test_a_rerun_takes_the_options_of_all_that_it_may_change() -> None:
    wanted = {field.name for field in FIELDS if field.options and not field.is_fixed}
    assert options_of("rerun").keys() - {"background", "verbose", "json_"} == wanted


def test_job_files_are_documented_key_by_key() -> None:
    page = (ROOT / "docs" / "job-files.md").read_text()
    shown = re.findall(r"^(\w+):", page.partition("```yaml\n")[2].partition("```")[0], re.MULTILINE)
    assert sorted(shown) == sorted([*BY_KEY, *CODE_KEYS]) == sorted(jobfile.KEYS)


def test_every_field_is_documented() -> None:
    page = (ROOT / "docs" / "json.md").read_text()
    table = page.partition("\n## RunSpec\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(BY_NAME)
    for field in FIELDS:
        line = next(line for line in table.splitlines() if line.startswith(f"| `{field.name}` |"))
        assert ("shown as `***`" in line) == (field.hides is masked), field.name


# -- written and read back --------------------------------------------------------------------------------------------


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    text, files = job_file(FULL)
    (tmp_path / "requirements").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "job.yaml").write_text(text)
    found = jobfile.load(tmp_path / "job.yaml")
    assert (found.github_url, found.github_ref) == ("https://example.org/code.git", "c" * 40)
    wanted = {field.name: getattr(FULL, field.name) for field in FIELDS if field.key and field.hides is not masked}
    assert found.fields == wanted | {"requirements": (FileName("requirements/r.txt", tmp_path),)}


def test_a_job_file_says_no_defaults() -> None:
    assert job_file(RunSpec("true", frameworks=()))[0].splitlines()[1:] == ["command: 'true'", "framework: []"]


SHOWN = {
    "command": "Command            train :LR:\n",
    "executor": "Executor           process\n",
    "code": "Code               none\n",
    "source": "would be built, from uv.lock\n",
    "image": "Image              python:3.12-slim, which would be pulled\n",
    "requirements": "Requirements File  r.txt\n",
    "mounts": "Mount              runs/2/data.txt, a file, at data.txt\n",
} | dict.fromkeys(
    ("machine_type", "cpus", "memory_bytes", "gpus", "gpu_type", "gpu_memory_bytes"),
    "Machine Type       gpu: 2.5 cores, 32.0 GiB of memory, 2 GPUs of type a100 with 40G\n",
)
"""Where `--dry-run` shows what has no line of its own name."""


def test_a_dry_run_shows_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    mounts = [PlannedMount(mount.resource, mount.path, is_folder=False) for mount in FULL.mounts]
    plan = PlanRecord(
        FULL.redacted(), "process", "gpu", 2.5, 32 << 30, 2, "", FULL.image, "pull", "k" * 64, "build", mounts, [], None, []
    )  # fmt: skip
    show_plan(plan, None, json_=False)
    told = capsys.readouterr().out
    for name in BY_NAME:
        line = SHOWN.get(name, name.removesuffix("_s").replace("_", " ").title() + "  ")
        assert line in told, f"{name} is not shown:\n{told}"


# -- joined -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "earlier", "later", "both"),
    [
        ("name", "a", "b", "b"),
        ("machine_type", "cpu", "gpu", "gpu"),
        ("timeout_s", 60.0, None, None),
        ("retries", 2, 0, 0),
        ("frameworks", ("a",), ("b",), ("b",)),
        ("frameworks", None, (), ()),
        ("pip", ("a",), ("b",), ("a", "b")),
        ("labels", ["a"], ["a", "b"], ["a", "a", "b"]),
        ("env", {"A": "1", "B": "2"}, {"B": "3", "C": ""}, {"A": "1", "B": "3", "C": ""}),
        ("secrets", {"V": "a"}, {"V": "b"}, {"V": "b"}),
        ("mounts", (Mount("runs/1/a", "./in/"), Mount("runs/1/b", "b")), (Mount("runs/2/c", "in"),),
         (Mount("runs/1/b", "b"), Mount("runs/2/c", "in"))),
        ("mounts", [{"resource": "runs/1/a", "path": "/x//y"}], [{"resource": "runs/2/a", "path": "/x/y"}],
         [{"resource": "runs/2/a", "path": "/x/y"}]),
        ("mounts", [{"resource": "runs/1/a", "path": "x"}], [7, {}, None], [{"resource": "runs/1/a", "path": "x"}, 7, {}, None]),
        ("mounts", [], "junk", "junk"),
        ("pip", ["a"], 7, 7),
        ("env", {"A": "1"}, [1], [1]),
        ("no_such_field", 1, 2, 2),
    ],
)  # fmt: skip
def test_joined(name: str, earlier: Any, later: Any, both: Any) -> None:
    assert joined({name: earlier, "command": "x"}, {name: later}) == {name: both, "command": "x"}
    assert joined({}, {name: later}) == {name: later}
    assert joined({name: earlier}, {}) == {name: earlier}


def test_what_is_typed_is_joined_to_a_job_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "command: 'true'\nmounts: ['runs/1/a:./in/', runs/1/b]\nenv: {A: 1, B: 2}\nretries: 3\ntimeout_min: 1\ndescription: x\n"
    )
    typed = SpecOptions.of(
        mounts=("runs/2/c:in",), env=("B=hunter2", "C="), retries=0, timeout_s=2.5, pip=(), description="", name=None
    )
    assert "hunter2" not in repr(typed)
    assert spec_of(typed, jobfile.load(tmp_path / "job.yaml").fields) == RunSpec(
        "true",
        mounts=(Mount("runs/1/b", "b"), Mount("runs/2/c", "in")),
        env={"A": "1", "B": "hunter2", "C": ""},
        retries=0,
        timeout_s=150.0,
        description="x",
    )
    assert changes(typed) == {
        "mounts": [{"resource": "runs/2/c", "path": "in"}],
        "env": {"B": "hunter2", "C": ""},
        "retries": 0,
        "timeout_s": 150.0,
        "description": "",
    }


# -- hidden -----------------------------------------------------------------------------------------------------------


def test_hidden_values_have_the_form_of_those_shown() -> None:
    wire = to_wire(dataclasses.replace(FULL, pip=("x @ https://me:hunter2@example.org/x.whl",)))
    shown = redacted_spec(wire)
    assert (shown["env"], shown["notify"]) == ({"A": MASK}, [MASK])
    assert shown["pip"] == ["x @ https://****@example.org/x.whl"]
    changed = {name for name in wire if wire[name] != shown[name]}
    assert changed == {"env", "notify", "pip"} and list(shown) == list(wire)
    assert redacted_spec({"of_a_newer_version": ["x"]}) == {"of_a_newer_version": ["x"]}


# -- compared ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(make_shared: Callable[..., Spell]) -> Spell:
    """A home with a project and a secret; `gpu` is a machine type like the others."""
    spell = make_shared("fields", config="[machine_types.cpu]\ncpus = 0.1\n[machine_types.gpu]\ncpus = 0.1\n")
    assert spell("project", "create", "jokes").code == 0
    setting = spell.popen("secret", "set", "TOKEN", stdin=subprocess.PIPE)
    assert setting.communicate(b"a long enough value")[1] == b""
    return spell


@pytest.fixture
def spell(home: Spell) -> Iterator[Spell]:
    """That home, without active runs."""
    yield home
    home.clear()


CHANGES: dict[str, Any] = {
    "command": "echo :X: >&2",
    "machine_type": "gpu",
    "cpus": 0.5,
    "memory_bytes": 64 << 20,
    "pip": ("six",),
    "requirements": (RequirementFile("r.txt", "six\n"),),
    "python": "3.12",
    "frameworks": ("pytorch",),
    "env": {"A": "2"},
    "description": "else",
    "name": "else",
    "labels": ("else",),
    "params": {"X": "2"},
    "timeout_s": 90.0,
    "ignore": ("*.tmp",),
    "retries": 1,
    "project": "jokes",
    "stop_conditions": ("loss > 10",),
    "no_output_timeout_s": 90.0,
    "notify": ("http://127.0.0.1:9/hook",),
    "secrets": {"TOKEN": "TOKEN"},
    "caches": "off",
    "checkpoints": "output",
}
"""For each field another value; what containers alone have, mounts and code are compared in tests/test_reuse.py, `editables` in
tests/test_editables.py, `resume` in tests/test_resume.py, GPUs by word in tests/test_resources.py."""


def test_nothing_is_forgotten() -> None:
    other = {"executor", "mounts", "image", "apt", "network", "code", "editables", "resume", "source"}
    elsewhere = other | {"gpus", "gpu_type", "gpu_memory_bytes"}
    assert CHANGES.keys() | elsewhere == BY_NAME.keys()


@pytest.fixture(scope="module")
def first(home: Spell) -> int:
    """The run that others are compared with."""
    return home.run("echo :X:", params={"X": "1"}, env={"A": "1"}).number


@pytest.mark.parametrize("name", CHANGES)
def test_reuse_compares_what_the_table_says(spell: Spell, first: int, name: str) -> None:
    fields: dict[str, Any] = {"command": "echo :X:", "params": {"X": "1"}, "env": {"A": "1"}, name: CHANGES[name]}
    found: CastRecord = spell.client.runs.cast(RunSpec(**fields), reuse=True)
    assert (found.number == first, found.reused) == ((False, False) if BY_NAME[name].is_compared else (True, True))
