"""Slurm's batch scripts as job files."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Spell

from orchestrator.errors import InvalidConfig
from orchestrator.spec.run import RunSpec
from orchestrator.spec.sbatch import BatchScript, load


def read(tmp_path: Path, *lines: str, first: str = "#!/bin/bash") -> BatchScript:
    """A script of these lines, read."""
    path = tmp_path / "job.sbatch"
    path.write_text("\n".join([first, *lines, ""]))
    script = load(path)
    assert script is not None
    return script


def fields(tmp_path: Path, *options: str) -> dict[str, Any]:
    """The fields of a spec that options give, without the command."""
    found = dict(read(tmp_path, *(f"#SBATCH {option}" for option in options), "true").fields)
    RunSpec(**found)
    del found["command"]
    return found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("1:30", 90), ("2:00:00", 7200), ("1-12", 129_600), ("1-0:30", 88_200), ("1-00:00:30", 86_430)],
)
def test_times_are_those_of_sbatch(tmp_path: Path, text: str, seconds: float) -> None:
    assert fields(tmp_path, f"--time={text}") == {"timeout_s": seconds}
    assert fields(tmp_path, f"-t{text}") == fields(tmp_path, f"--time {text}  # limit") == {"timeout_s": seconds}


def test_resources_are_those_of_all_tasks(tmp_path: Path) -> None:
    gib = 1 << 30
    assert fields(tmp_path, "-c 4 --mem=16G") == {"cpus": 4, "memory_bytes": 16 * gib}
    assert fields(tmp_path, "-n 4 -c 2", "--mem-per-cpu=1G") == {"cpus": 8, "memory_bytes": 8 * gib}
    assert fields(tmp_path, "--mem 512") == {"memory_bytes": 512 << 20}
    assert fields(tmp_path, "--gres=gpu:a100:2,lustre:1") == {"gpus": 2, "gpu_type": "a100"}
    assert fields(tmp_path, "-G 1", "--mem-per-gpu=2G --cpus-per-gpu=3") == {
        "gpus": 1,
        "cpus": 3,
        "memory_bytes": 2 * gib,
    }
    assert fields(tmp_path, "--gpus-per-task=1", "--ntasks=2") == {"gpus": 2, "cpus": 2}
    assert fields(tmp_path, "--time=UNLIMITED", "--nodes=1") == {}


def test_words_and_what_has_no_meaning(tmp_path: Path) -> None:
    script = read(
        tmp_path,
        "#SBATCH -J 'my job' --comment \"a b\" --export=ALL,X=5",
        "# a comment",
        "",
        "#SBATCH --partition=gpu -A me --exclusive",
        "#SBATCH --output=%j.out --mail-type END --ntasks=2",
        "python train.py",
        "#SBATCH --time=5",
    )
    found = script.fields
    assert (found["name"], found["description"], found["env"]) == ("my-job", "a b", {"X": "5"})
    assert "timeout_s" not in found, "what stands behind the first command is none of sbatch's"
    assert script.notes[0] == "--partition=gpu, --account=me, --exclusive: without meaning on one machine"
    told = "; ".join(script.notes)
    assert "--output: the log is kept" in told and "--notify" in told and "torchrun --nproc-per-node 2" in told
    assert "variables of your shell are not passed" in told


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["#SBATCH -N 2", "true"], "job.sbatch, line 2: --nodes: spell runs on one machine, not on 2"),
        (["#SBATCH --mem=lots", "true"], "--mem: 'lots' is no size"),
        (["", "#SBATCH --time=x", "true"], "line 3: --time: 'x' is no time"),
        (["#SBATCH --array=a-b", "true"], "--array: 'a-b' is no number and no range"),
        (["#SBATCH --array=5-1", "true"], "--array: it has no tasks"),
        (["#SBATCH -c x", "true"], "--cpus-per-task: 'x' is no whole number"),
        (["#SBATCH train.py", "true"], "it is no option"),
        (["#SBATCH --comment='x", "true"], "No closing quotation"),
        (["#SBATCH --time=5"], "has no command"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        read(tmp_path, *lines)


def test_other_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("command: true\n")
    assert load(tmp_path / "job.yaml") is None and load(tmp_path / "nothing") is None


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_srun_runs_its_command_behind_all_options(tmp_path: Path, shell: str) -> None:
    lines = [
        f"srun {options} echo 'a b' -n 4"
        for options in (
            "", "--", "-n 4", "-n4 -c 2", "-ul -n 2", "-un 4", "-lun 4", "--ntasks 4", "--ntasks=4 --pty", "-u --mpi=none --mpi pmix",
            "--exclusive -N 1 --cpu-bind cores --kill-on-bad-exit -K -I --label --", "--gpus-per-task 1 --unbuffered", "-J name -o x.out -W 0",
        )
    ]  # fmt: skip
    command = read(tmp_path, "set -eu", *lines, "srun || exit", "srun -n", "srun false || echo failed").fields[
        "command"
    ]
    done = subprocess.run([shell, "-c", command], env={"SPELL_RUN": "1"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "a b -n 4\n" * len(lines) + "failed\n"


def test_a_script_runs_as_under_slurm(spell: Spell, tmp_path: Path) -> None:
    """Options, srun, modules and variables; another language; an array as a search."""
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    (project / "sub" / "data").write_text("x")
    (project / "job.sbatch").write_text(
        "#!/bin/bash -l\n#SBATCH -J job -p gpu --chdir=sub --time=5\nset -e\nmodule load cuda\n"
        'srun -u --mpi=none echo "$SLURM_JOB_ID ${PWD##*/}"\nenv | grep -c ^SLURM || exit 7\n'
    )
    done = spell("run", "--file", "job.sbatch", cwd=project)
    assert done.code == 7 and "1 sub\n0\n" in done.out and "module load cuda: there are no modules here" in done.out
    assert "✨ job.sbatch: --partition=gpu: without meaning on one machine\n" in done.err
    run = spell.client.runs.get(1)
    assert (run.name, run.spec["timeout_s"]) == ("job", 300)
    (project / "array.sbatch").write_text(
        "#!/usr/bin/env python3\n#SBATCH --array=1,4-8:2%1\nimport os\nprint('task', os.environ['SLURM_ARRAY_TASK_ID'])\n"
    )
    refused = spell("run", "--file", "array.sbatch", cwd=project)
    assert refused.code == 2 and "is an array of 4 tasks, which is a search here" in refused.err
    assert "spell hyper grid --file array.sbatch --param SLURM_ARRAY_TASK_ID=1,4,6,8" in refused.err
    assert "task 6" in spell("run", "--file", "array.sbatch", "--param", "SLURM_ARRAY_TASK_ID=6", cwd=project).out
