"""Workflow files: what is read, how a job file and a step are joined, and that every error says where and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InvalidConfig, NotFound, SpellError, UsageError
from orchestrator.spec import workflowfile
from orchestrator.spec.fields import FIELDS, FileName
from orchestrator.spec.jobfile import JobFile
from orchestrator.spec.mounts import Mount, parse_mount
from orchestrator.spec.run import RunSpec
from orchestrator.spec.workflow import MAX_STEPS, Step, WorkflowSpec, filled
from orchestrator.spec.workflowfile import FileStep, WorkflowFile, joined, load

ROOT = Path(__file__).parents[1]
TRAIN = """\
command: "python train.py --lr :LR: --epochs :EPOCHS:"
name: trained
machine_type: gpu
params: {LR: 0.1, EPOCHS: 3}
pip: [six]
mounts: [runs/7/data.txt, "runs/old/model:base"]
"""


def read(tmp_path: Path, text: str, **jobs: str) -> WorkflowFile:
    """The workflow file of this text, among these job files."""
    for name, job in jobs.items():
        (tmp_path / f"{name}.yaml").write_text(job)
    path = tmp_path / "flow.yaml"
    path.write_text(text)
    return load(path)


def steps(found: WorkflowFile) -> dict[str, FileStep]:
    return {step.name: step for step in found.steps}


# -- what is read -----------------------------------------------------------------------------------------------------


def test_steps_in_their_order(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """\
steps:
  train: {file: train.yaml, needs: [last]}
  data: {command: "echo > data.txt"}
  last:
    command: cat data.txt
    mounts: "${runs.data}/data.txt"
    needs: data
""",
        train=TRAIN,
    )
    assert found.name == "flow"
    assert [step.name for step in found.steps] == ["train", "data", "last"]
    train = steps(found)["train"].job
    assert train.fields["machine_type"] == "gpu"
    assert [step.needs for step in found.steps] == [("last",), (), ("data",)]


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("${runs.a}/data.txt", ("runs/${a}/data.txt", "data.txt")),
        ("${runs.a}/x/data.txt:d", ("runs/${a}/x/data.txt", "d")),
        ("${runs.a}", ("runs/${a}", "a")),
        ("${runs.a}/", ("runs/${a}", "a")),
        ("${runs.a}:before", ("runs/${a}", "before")),
        ("${runs.a}:/data/in", ("runs/${a}", "/data/in")),
        ("runs/7/data.txt", ("runs/7/data.txt", "data.txt")),
    ],
)
def test_references(tmp_path: Path, text: str, mount: tuple[str, str]) -> None:
    found = read(tmp_path, f'steps: {{a: {{command: "true"}}, b: {{command: "true", mounts: ["{text}"]}}}}')
    assert steps(found)["b"].job.fields["mounts"] == (Mount(*mount),)


def test_references_in_a_job_file(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "steps: {a: {command: 'true'}, b: {file: job.yaml}, c: {file: job.yaml}}",
        job="command: cat x\nmounts: ['${runs.a}/x']",
    )
    wanted = (Mount("runs/${a}/x", "x"),)
    assert [step.job.fields.get("mounts", ()) for step in found.steps] == [(), wanted, wanted]


def test_anchors(tmp_path: Path) -> None:
    text = "steps:\n  a: {command: 'true'}\n  b: &b {file: job.yaml, mounts: ['${runs.a}/x']}\n  c: *b\n"
    found = read(tmp_path, text, job="command: cat x")
    assert found.steps[1].job == found.steps[2].job
    assert found.steps[1].job.fields["mounts"] == (Mount("runs/${a}/x", "x"),)


def test_the_shipped_chain() -> None:
    found = load(ROOT / "jobs" / "jokes" / "chain.yaml")
    assert [step.name for step in found.steps] == ["base", "download", "finetune", "generate"]
    base, data = Mount("runs/${base}/model", "base"), Mount("runs/${download}/data.txt", "data.txt")
    assert steps(found)["finetune"].job.fields["mounts"] == (base, data)
    assert steps(found)["generate"].job.fields["mounts"] == (Mount("runs/${finetune}/model", "model"),)


def test_the_file_in_the_docs_can_be_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "workflows.md").read_text()
    text = page.partition("```yaml\n")[2].partition("```")[0]
    found = read(tmp_path, text, download="command: 'true'", count="command: wc data.txt > count.txt")
    assert [step.name for step in found.steps] == ["download", "count", "sort", "report"]
    docstring = (workflowfile.__doc__ or "").partition("\n\n")[2].partition("\n\n")[0]
    assert read(tmp_path, docstring, download="command: 'true'", finetune="command: 'true'").name == "jokes"


# -- joining ----------------------------------------------------------------------------------------------------------


def test_fields_of_a_step_are_added_or_win(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """\
steps:
  data: {command: "true"}
  train:
    file: train.yaml
    machine_type: cpu
    params: {LR: 0.5}
    pip: [attrs]
    mounts: ["${runs.data}/data.txt", "${runs.data}:more"]
    timeout_min: 5
""",
        train=TRAIN,
    )
    job = steps(found)["train"].job.fields
    assert (job["machine_type"], job["name"], job["timeout_s"]) == ("cpu", "trained", 300)
    assert job["params"] == {"LR": "0.5", "EPOCHS": "3"}
    assert job["pip"] == ("six", "attrs")
    mounts = ("runs/old/model:base", "runs/${data}/data.txt", "runs/${data}:more")
    assert job["mounts"] == tuple(parse_mount(text) for text in mounts)


def test_a_mount_at_the_same_path_takes_its_place_however_it_is_written() -> None:
    file = JobFile({"mounts": (Mount("runs/1/a", "in/x"), Mount("runs/1/b", "b"))})
    own = JobFile({"mounts": (Mount("runs/2/c", "./in//x/"),)})
    assert joined(file, own).fields["mounts"] == (Mount("runs/1/b", "b"), Mount("runs/2/c", "./in//x/"))


def test_every_field_is_joined() -> None:
    values = {"text": "x", "list": ("x",), "mapping": {"X": "x"}, "number": 1.0, "minutes": 1.0}
    for field in FIELDS:
        if field.key:
            said = {field.name: (Mount("runs/1/x", "x"),) if field.name == "mounts" else values[field.kind.shape]}
            assert joined(JobFile(said), JobFile()) == joined(JobFile(), JobFile(said)) == JobFile(said)
    for code in (JobFile(github_url="x"), JobFile(github_ref="x")):
        assert joined(code, JobFile()) == joined(JobFile(), code) == code


def test_paths_are_of_the_folder_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "job.yaml").write_text("command: 'true'\npip: ./theirs.whl\npip_req: theirs.txt")
    found = read(tmp_path, "steps: {a: {file: jobs/job.yaml, pip: [./own.whl, six], pip_req: own.txt}}")
    job = found.steps[0].job.fields
    assert job["pip"] == (str(tmp_path / "jobs" / "theirs.whl"), str(tmp_path / "own.whl"), "six")
    assert job["requirements"] == (FileName("theirs.txt", tmp_path / "jobs"), FileName("own.txt", tmp_path))


# -- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("just words", InvalidConfig, "flow.yaml, line 1: a workflow file is a mapping with 'steps: …'"),
        ("steps: [a", InvalidConfig, "flow.yaml, line 1: "),
        ("name: x", InvalidConfig, "line 1: steps: must be a mapping of steps, NAME: {file: JOB.yaml}"),
        ("steps: {}", InvalidConfig, "line 1: steps: must be a mapping of steps"),
        ("name: x\nsteps: [a]", InvalidConfig, "line 2: steps: must be a mapping of steps"),
        ("steps:\nsteps:", InvalidConfig, "line 2: steps: is given twice."),
        ("stages:\n  a: 1", UsageError, "line 1: stages: is not a field of workflow files."),
        ("name: 7\nsteps: {a: {command: x}}", InvalidConfig, "line 1: name: A workflow cannot be called '7'."),
        ("name: latest\nsteps: {a: {command: x}}", InvalidConfig, "A workflow cannot be called 'latest'."),
        ("steps:\n  a:\n    command: x\n    comand: y", UsageError, "line 4: comand: is not a field of steps."),
        ("steps:\n  a: {command: x}\n  a: {command: y}", InvalidConfig, "line 2: a: is given twice."),
        ("steps:\n  a b: {command: x}", InvalidConfig, "line 2: steps: A step cannot be called 'a b'."),
        ("steps:\n  1: {command: x}", InvalidConfig, "line 2: steps: A step cannot be called '1'."),
        ("steps:\n  a: job.yaml", InvalidConfig, "line 2: a: must be a mapping of fields"),
        ("steps:\n  a:", InvalidConfig, "line 2: a: must be a mapping of fields"),
        ("steps:\n  a: {machine_type: cpu}", InvalidConfig, "line 2: a: needs a command, or a file with one."),
        ("steps:\n  a:\n    file: none.yaml", InvalidConfig, "line 3: file: no such file: "),
        ("steps:\n  a:\n    file: [x]", InvalidConfig, "line 3: file: no such file: "),
        ("steps:\n  a:\n    command: x\n    needs: b", InvalidConfig, "line 4: needs: no such step: 'b'."),
        ("steps:\n  a:\n    command: x\n    needs: [[a]]", InvalidConfig, "line 4: needs: no such step: "),
        ("steps:\n  a: {command: x, mounts: ['${runs.b}/c']}", InvalidConfig, "mounts: no such step: 'b'."),
        ("steps:\n  a: {command: x, mounts: ['${runs.}/c']}", InvalidConfig, "mounts: no such step: ''."),
        ("steps:\n  a: {command: x, mounts: ['x/${runs.a}']}", InvalidConfig, "'x/${runs.a}' is not like"),
        ("steps:\n  a: {command: x, mounts: ['${runs.a}x']}", InvalidConfig, "'${runs.a}x' is not like"),
        ("steps:\n  a: {command: x, mounts: ['${runs/a}/x']}", InvalidConfig, "is not like '${runs.STEP}/PATH'."),
        ("steps:\n  a: {command: 'cat ${runs.a}/x'}", InvalidConfig, "command: '${runs.a}' is allowed in mounts only"),
        ("steps:\n  a: {command: x, env: {A: '${runs.a}'}}", InvalidConfig, "env: '${runs.a}' is allowed in mounts"),
        ("steps:\n  a: {command: x, pip: ['${runs.a}']}", InvalidConfig, "pip: '${runs.a}' is allowed in mounts"),
        ("steps:\n  a:\n    command: x\n    mounts: runs", NotFound, "line 4: mounts: Cannot mount"),
        ("steps:\n  a:\n    command: x\n    retries: many", InvalidConfig, "line 4: retries: must be a number"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, kind: type[SpellError], words: str) -> None:
    with pytest.raises(kind) as caught:
        read(tmp_path, text)
    assert words in caught.value.message
    assert str(tmp_path / "flow.yaml") in caught.value.message


def test_what_is_wrong_in_a_job_file_is_said_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"job\.yaml, line 2: mounts: no such step: 'b'"):
        read(tmp_path, "steps: {a: {file: job.yaml}}", job="command: x\nmounts: ['${runs.b}/c']")
    with pytest.raises(UsageError, match=r"job\.yaml, line 1: steps: is not a field of job files"):
        read(tmp_path, "steps: {a: {file: job.yaml}}", job="steps: {a: {command: x}}")


def test_unknown_names_come_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        read(tmp_path, "steps: {one: {command: x}, two: {command: x, needs: on}}")
    assert caught.value.cure == "The steps are: one, two."


# -- the spec ---------------------------------------------------------------------------------------------------------


def step(name: str, *needs: str, mounts: tuple[str, ...] = ()) -> Step:
    return Step(name, RunSpec("true", mounts=tuple(parse_mount(text) for text in mounts)), needs)


def test_needs_are_those_told_and_those_mounted() -> None:
    made = step("c", "a", mounts=("runs/${b}/x", "runs/${a}:y", "runs/7/z"))
    assert made.all_needs == ("a", "b")
    mounts = filled(made.spec, {"a": 3, "b": 12}).mounts
    assert [(mount.resource, mount.path) for mount in mounts] == [
        ("runs/12/x", "x"),
        ("runs/3", "y"),
        ("runs/7/z", "z"),
    ]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([], "A workflow must have at least one step"),
        ([step(f"s{number}") for number in range(MAX_STEPS + 1)], f"at most {MAX_STEPS}"),
        ([step("a"), step("a")], "Two steps are called 'a'."),
        ([step("a", "b")], "Step 'a' needs 'b', which is not a step of the workflow."),
        ([step("a", mounts=("runs/${b}/x",))], "Step 'a' needs 'b', which is not a step of the workflow."),
        ([step("a", "a")], "Step 'a' needs itself."),
        ([step("a", "b"), step("b", mounts=("runs/${c}/x",)), step("c", "a")], "needs itself, by way of "),
    ],
)
def test_what_cannot_be_led_is_refused(made: list[Step], words: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        WorkflowSpec("flow", tuple(made))
    assert words in caught.value.message


def test_a_circle_is_told_in_order() -> None:
    with pytest.raises(InvalidConfig) as caught:
        WorkflowSpec("flow", (step("a", "b"), step("b", "c"), step("c", "a")))
    first, *others = (part.strip(" '.,") for part in caught.value.message.replace("by way of", ",").split(","))
    circle = [first.split("'")[1], *(name for name in others if name)]
    needs = {"a": "b", "b": "c", "c": "a"}
    assert [needs[name] for name in circle] == [*circle[1:], circle[0]]
