"""Job files: what is read, and that every error names file, line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InvalidConfig, NotFound, SpellError, UsageError
from orchestrator.spec.fields import FileName
from orchestrator.spec.jobfile import KEYS, JobFile, load
from orchestrator.spec.mounts import Mount

ROOT = Path(__file__).parents[1]


def read(tmp_path: Path, text: str) -> JobFile:
    """The job file of this text."""
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return load(path)


WHOLE = """\
# everything there is
command: |
  python train.py \\
    --lr :LR:
description: "two: words"
name: trained
labels: [one, two words]
machine_type: gpu
cpus: 2.5
memory: 32G
gpus: 2
gpu_type: a100, rtx 4090
gpu_memory: 40G
executor: docker
image: registry.example:5000/base@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
apt: [tree, ffmpeg=7:5.1.6-0+deb12u1]
network: none
framework: pytorch
pip:
  - six==1.17
  - torch @ file:///x.whl
pip_req: requirements.txt
python: 3.10
editable: [., libs/a]
no_project: yes
group: dev
extra: [a, b]
mounts: [runs/latest/data.txt, "runs/1:before"]
env: {A: 1, B: no, C: 0755, D: 1:30, E: 2024-01-01, F: "", G: 1.0e-3, H: x=y}
params: {LR: 0.10}
timeout_min: 1.5
no_output_timeout_min: 30
retries: 2
stop_conditions: "loss > 10:100"
project: jokes
notify: https://example.org/hook
secrets: [TOKEN, KEY=API_KEY]
resume: 7
checkpoints: output
caches: read-only
ignore: ["*.tmp", cache/]
github_url: https://example.org/code.git
github_ref: v1
"""


def test_every_field(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE)
    assert found.fields == dict(
        command="python train.py \\\n  --lr :LR:\n",
        description="two: words",
        name="trained",
        labels=("one", "two words"),
        machine_type="gpu",
        cpus=2.5,
        memory_bytes=32 << 30,
        gpus=2,
        gpu_type="a100, rtx 4090",
        gpu_memory_bytes=40_000_000_000,
        executor="docker",
        image=f"registry.example:5000/base@sha256:{'a' * 64}",
        apt=("tree", "ffmpeg=7:5.1.6-0+deb12u1"),
        network="none",
        frameworks=("pytorch",),
        pip=("six==1.17", "torch @ file:///x.whl"),
        requirements=(FileName("requirements.txt", tmp_path),),
        python="3.10",  # not 3.1
        editables=(".", "libs/a"),
        mounts=(Mount("runs/latest/data.txt", "data.txt"), Mount("runs/1", "before")),
        env=dict(A="1", B="no", C="0755", D="1:30", E="2024-01-01", F="", G="1.0e-3", H="x=y"),  # as they are written
        params={"LR": "0.10"},
        timeout_s=90.0,
        no_output_timeout_s=1800.0,
        retries=2,
        stop_conditions=("loss > 10:100",),
        project="jokes",
        notify=("https://example.org/hook",),
        secrets={"TOKEN": "TOKEN", "API_KEY": "KEY"},
        resume="7",
        checkpoints="output",
        caches="read-only",
        ignore=("*.tmp", "cache/"),
    )
    assert (found.github_url, found.github_ref) == ("https://example.org/code.git", "v1")
    assert (found.no_project, found.group, found.extra) == (True, ("dev",), ("a", "b"))
    assert {line.partition(":")[0] for line in WHOLE.splitlines() if line[0].isalpha()} == set(KEYS)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("command: true", "command", "true"),
        ("name:\ncommand: x", "name", None),  # an empty field is as good as none
        ("pip: six", "pip", ("six",)),
        ("pip: []", "pip", ()),
        ("framework: []", "frameworks", ()),  # none, not the default
        ("command: x", "frameworks", None),
        ("timeout_min: '90'", "timeout_s", 5400.0),
        ("labels: &some [a, b]\npip: *some", "pip", ("a", "b")),
        ("python: 3", "python", "3"),
        ("env:\n  X: >\n    one\n    two", "env", {"X": "one two"}),
        ("\ufeffcommand: x", "command", "x"),
        ("command: 'echo 日本 🎉'", "command", "echo 日本 🎉"),
        ("{command: x, env: {A: ~a}}", "env", {"A": "~a"}),
    ],
)
def test_good_files(tmp_path: Path, text: str, field: str, value: object) -> None:
    assert read(tmp_path, text).fields.get(field) == value


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("command: x\ncomand: y", 2, "comand: is not a field of job files"),
        ("command: x\n\ncommand: y", 3, "command: is given twice"),
        ("command: python :ARGS:", 1, "mapping values are not allowed here"),
        ("command: [x", 1, "expected ',' or ']'"),
        ("command: {", 1, "expected the node content, but found '<stream end>'"),
        ("command: x\n\tname: y", 2, "found character '\\t' that cannot start any token"),
        ("command: a: b", 1, "mapping values are not allowed here"),
        ("command: *nothing", 1, "found undefined alias"),
        ("command: x\n---\ncommand: y", 2, "but found another document"),
        ("", 1, "a job file is a mapping of fields"),
        ("- command: x", 1, "a job file is a mapping of fields"),
        ("just text", 1, "a job file is a mapping of fields"),
        ("command: [a, b]", 1, "command: must be text, or a number, not a list"),
        ("name: {a: b}", 1, "name: must be text, or a number, not a mapping"),
        ("command: !env HOME", 1, "command: must be text, or a number, not !env"),
        ("command: !!binary aGk=", 1, "command: must be text, or a number, not binary"),
        ("pip: {six: 1}", 1, "pip: must be text, or a number, not a mapping"),
        ("pip:\n  - six\n  - [x]", 3, "pip: must be text, or a number, not a list"),
        ("pip:\n  - six\n  -", 3, "pip: must be text, or a number, not nothing"),
        ("pip:\n  - six\n  - -r other.txt", 3, "pip: '-r other.txt' is not a pip requirement"),
        ("env: [A=1]", 1, "env: must be a mapping, NAME: VALUE"),
        ("env:\n  A: 1\n  B: [1]", 3, "env: must be text, or a number, not a list"),
        ("env:\n  A: 1\n  B:", 3, "env: must be text, or a number, not nothing"),
        ("env:\n  A: 1\n  A: 2", 3, "env: A is given twice"),
        ("env:\n  A: 1\n  1B: 2", 3, "env: Environment variable name '1B' is not allowed"),
        ("env:\n  SPELL_HOME: /x", 2, "env: Environment variable 'SPELL_HOME' is set by spell itself"),
        ("command: 'f :A B:'\nparams:\n  A B: 1", 3, "params: Parameter name 'A B' is not a word"),
        ("timeout_min: soon", 1, "timeout_min: 'soon' is not a duration"),
        ("timeout_min: 1:30", 1, "timeout_min: '1:30' is not a duration"),
        ("timeout_min: -1", 1, "timeout_min: The time limit must be more than 0"),
        ("timeout_min: .inf", 1, "timeout_min: '.inf' is not a duration"),
        ("timeout_min: nan", 1, "timeout_min: 'nan' is not a duration"),
        ("no_output_timeout_min: 1e999", 1, "no_output_timeout_min: '1e999' is not a duration"),
        ("timeout_min: 0h", 1, "timeout_min: The time limit must be more than 0"),
        ("command: x\nname: 42", 2, "name: Run name '42' is not allowed"),
        ("name: a b", 1, "name: Run name 'a b' is not allowed"),
        ("labels:\n- fine\n- 'no;pe'", 3, "labels: Label 'no;pe' is not a word"),
        ("python: three", 1, "python: Python version 'three' is not like '3.12'"),
        ("mounts:\n- runs/1/a\n- a:b:c", 3, "mounts: Incorrect formatting of mount 'a:b:c'"),
        ("mounts: [runs]", 1, "mounts: Cannot mount resource 'runs': not a valid resource"),
        ("mounts: ['runs/1/../x']", 1, "mounts: The mounted resource 'runs/1/../x' must not contain '..'"),
        ("command: ''", 1, "command: The command is empty"),
        ("labels: [a]\nproject: ' x'", 2, "project: Project name ' x' is not allowed"),
        ("secrets:\n- A\n- B=", 3, "secrets: --secret 'B=' is not of the form NAME or NAME=VARIABLE"),
        ("retries: 1.5", 1, "retries: A run can be tried again a whole number of times, not 1.5 times"),
        ("retries: inf", 1, "retries: A run can be tried again a whole number of times, not inf times"),
        ("mounts:\n- runs/1/a\n- runs/2/a", 2, "mounts: Two mounts have the same path"),
        ("? [a]\n: b", 1, "is not a field of job files"),
        ("command: x\n<<: text", 2, "<<: must be a mapping, or a list of mappings"),
        ("x-a: &a {colour: red}\ncommand: x\n<<: *a", 1, "colour: is not a field of job files"),
        ("command: “python x.py”", 1, "command: The command begins with “, which is no quote to a shell"),
        ("pip_req: ''", 1, "pip_req: must name a file"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(SpellError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path / 'job.yaml'}, line {line}: ")
    assert said in caught.value.message
    wanted = UsageError if "is not a field" in said else NotFound if "not a valid" in said else InvalidConfig
    assert type(caught.value) is wanted


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory."),
        (b"\xff\xfe\x00", ", line 1: this is not text in UTF-16-LE"),
        (b"command: x\nname: caf\xe9", ", line 2: this is not text in UTF-8"),
        (b"command: \x00", "special characters are not allowed"),
        (b"[" * 5000, "job.yaml"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidConfig) as caught:
        load(path)
    assert str(path) in caught.value.message and said in caught.value.message
    with pytest.raises(InvalidConfig, match="Is a directory"):
        load(tmp_path)


MERGED = """\
x-common: &common
  machine_type: gpu
  env: &env {A: "1", B: "2"}
  timeout_min: 1h30m
<<: *common
env: {<<: [*env, {B: "0", C: "3"}], A: "9"}
command: echo
labels: &labels [one]
"""


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    """What stands beside a merge key wins over it, and the first of several merged mappings over the later ones."""
    found = read(tmp_path, MERGED).fields
    assert (found["machine_type"], found["timeout_s"], found["command"]) == ("gpu", 5400.0, "echo")
    assert found["env"] == {"A": "9", "B": "2", "C": "3"}
    for encoding in ("utf-16", "utf-8-sig"):  # as PowerShell and Notepad write it
        (tmp_path / "job.yaml").write_text(MERGED, encoding)
        assert load(tmp_path / "job.yaml").fields == found


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("machine-type", "machine_type"),
        ("comand", "command"),
        ("timeout", "timeout_min"),
        ("mount", "mounts"),
        ("Docker-Image", "image"),
        ("requirements", "pip_req"),
    ],
)
def test_a_wrong_key_is_answered_with_the_right_one(tmp_path: Path, key: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, f"{key}: x")
    assert caught.value.cure.startswith(f"Did you mean {meant!r}? The fields are: ")


def test_values_of_variables_are_not_shown(tmp_path: Path) -> None:
    assert "hunter2" not in repr(read(tmp_path, "env: {KEY: hunter2}\nnotify: https://example.org/hunter2"))


JOB_FILES = sorted(set((ROOT / "jobs").glob("*/*.yaml")) - set((ROOT / "jobs").glob("*/chain.yaml")))


@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.name)
def test_shipped_job_files_can_be_read(path: Path) -> None:
    job = load(path)
    assert job.fields["command"] and job.fields["description"] and job.fields["name"]


def test_a_workflow_file_is_told_apart() -> None:
    with pytest.raises(UsageError) as caught:
        load(ROOT / "jobs" / "jokes" / "chain.yaml")
    assert "is a workflow file" in caught.value.message
    assert "spell workflow" in caught.value.cure
