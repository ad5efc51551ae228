"""`--from-file` and `--save-command`: what is typed, kept in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Spell


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home for all tests here."""
    return make_shared("command-files")


def test_what_was_saved_casts_the_same(spell: Spell, tmp_path: Path) -> None:
    file = tmp_path / "saved.yaml"
    words = ["--pip", "six", "-e", "A=b c", "--timeout", "1.5", "--force", "--json", "--param", "X=1"]
    first = spell("run", *words, "--save-command", str(file), "python -c 'print(:X:)'")
    assert first.code == 0, first.err
    assert yaml.safe_load(file.read_text()) == {
        "command": ["python -c 'print(:X:)'"],
        "pip": ["six"],
        "env": ["A=b c"],
        "param": ["X=1"],
        "timeout": 1.5,
        "force": True,
        "json": True,
    }
    assert file.stat().st_mode & 0o077 == 0
    again = spell("run", "--from-file", str(file))
    assert again.code == 0, again.err
    assert again.json()["spec"] == first.json()["spec"]


def test_what_is_typed_wins(spell: Spell, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "x-all: &all {label: one 'two words', force: true, m: [], project:}\n"
        "COMMAND: echo file\nname: of-the-file\n<<: *all\nbackground: false\ntimeout: 2h\n"
    )
    run = spell("run", "--from-file", str(file), "--name", "typed", "--json").json()
    assert (run["command"], run["name"], run["labels"]) == ("echo file", "typed", ["one", "two words"])
    run = spell("run", "--from-file", str(file), "--json", "echo", "typed").json()
    assert (run["command"], run["name"], run["spec"]["timeout_s"]) == ("echo typed", "of-the-file", 7200)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("colour: red\n", 2, "colour: run has no such option."),
        ("- a\n", 3, "is not a mapping of options to values."),
        ("name: [a, b]\n", 3, "name: takes one value, not list."),
        ("name: {a: b}\n", 3, "name: takes one value, not dict."),
        ("timeout: soon\n", 2, "'soon' is not a duration"),
        ("force: perhaps\n", 2, "'perhaps' is not a valid boolean"),
        ("pip: 'a \"b'\n", 3, "pip: No closing quotation."),
        ("name: a\nNAME: b\n", 3, "NAME is given twice."),
        ("a: b: c\n", 3, "wrong.yaml, line 1: mapping values are not allowed here"),
        ("pip: {six: 1.16}\n", 3, "pip: takes a list of values, each a word or text."),
        ("pip: [[six]]\n", 3, "pip: takes a list of values, each a word or text."),
        ("from-file: x\n", 2, "from-file: run has no such option."),
        (
            "name: a\nmachin-type: gpu\n",
            2,
            "line 2: machin-type: run has no such option.\n       Did you mean 'machine-type'?",
        ),
    ],
)
def test_wrong_files(spell: Spell, tmp_path: Path, text: str, code: int, words: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    done = spell("run", "--from-file", str(file), "true")
    assert (done.code, words in done.err) == (code, True), done


def test_files_that_cannot_be_used(spell: Spell, tmp_path: Path) -> None:
    done = spell("run", "--from-file", str(tmp_path / "none.yaml"), "true")
    assert (done.code, "none.yaml cannot be read: No such file" in done.err) == (3, True), done
    done = spell("run", "--save-command", str(tmp_path / "none" / "x.yaml"), "true")
    assert (done.code, "x.yaml cannot be written: No such file" in done.err) == (3, True), done
    assert "Casting" not in done.out


def test_files_of_another_kind_say_how_they_are_cast(spell: Spell, tmp_path: Path, repo: Path) -> None:
    saved, job, flow = repo / "saved.yaml", repo / "job.yaml", repo / "flow.yaml"
    job.write_text("command: echo hi\ntimeout_min: 3\n")
    flow.write_text("steps: {a: {command: 'true'}}\n")
    first = spell("run", "--save-command", str(saved), "true", cwd=repo)
    untracked = first.err.split("untracked files")[1]
    assert "job.yaml" in untracked and "saved.yaml" not in untracked, "what was just written is no code"
    job.unlink()
    flow.unlink()
    again = spell("run", "--from-file", "saved.yaml", cwd=repo)
    assert (again.code, again.err) == (0, "")
    job.write_text("command: echo hi\ntimeout_min: 3\n")
    (repo / ".git/info/exclude").write_text("saved.yaml\n")
    run = spell("run", "--file", "job.yaml", cwd=repo)
    assert (run.code, run.err) == (0, "")
    flow.write_text("steps: {a: {command: 'true'}}\n")
    for words, said, cure in (
        (
            ["run", "--file", "saved.yaml"],
            "saved.yaml is a saved command, not a job file.",
            "run --from-file saved.yaml",
        ),
        (
            ["workflow", "saved.yaml"],
            "saved.yaml is a saved command, not a workflow file.",
            "run --from-file saved.yaml",
        ),
        (
            ["run", "--from-file", "job.yaml"],
            "job.yaml, line 2: timeout_min: run has no such option.",
            "run --file job.yaml",
        ),
        (
            ["run", "--from-file", "flow.yaml"],
            "flow.yaml, line 1: steps: run has no such option.",
            "workflow flow.yaml",
        ),
        (["workflow", "job.yaml"], "job.yaml is a job file, not a workflow file.", "run --file job.yaml"),
    ):
        done = spell(*words, cwd=repo)
        assert (done.code, done.err.splitlines()[0]) == (2, f"ERROR: {said}"), done
        assert (
            done.err.splitlines()[1].endswith(f" cast with: spell {cure}") or f"Cast it with: spell {cure}" in done.err
        )


def test_another_file_is_not_overwritten(spell: Spell, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print('mine')\n")
    done = spell("run", "--save-command", str(script), "true")
    assert (done.code, "was not written by --save-command" in done.err) == (2, True), done
    assert script.read_text() == "print('mine')\n"
    saved = tmp_path / "saved.yaml"
    for word in ("one", "two"):
        assert spell("run", "--save-command", str(saved), f"echo {word}").code == 0
    assert yaml.safe_load(saved.read_text()) == {"command": ["echo two"]}
