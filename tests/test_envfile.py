"""Files of variables: `--env-file`, and `-e NAME`."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import DEADLINE_S, Spell
from dotenv import dotenv_values

from orchestrator.cli.input.envfile import read_files, secrets_in
from orchestrator.errors import InvalidConfig

TEXT = """\
# the database
export HOST=localhost
URL="http://${HOST}:${PORT:-5432}/x"  # with a comment
NAME = two words # and a comment
PLAIN='a # b \\n'
ESCAPED="one\\ntwo"
KEY="-----BEGIN
lines
-----END"
HASH=a#b
EMPTY=
QUOTED="it's"
HERE=$HOME
"""


def test_a_file_is_read_as_python_dotenv_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_SHELL", "s h")
    path = tmp_path / ".env"
    path.write_text(TEXT)
    found = read_files([path])
    assert found == dotenv_values(path)
    assert found == {
        "HOST": "localhost", "URL": "http://localhost:5432/x", "NAME": "two words", "PLAIN": "a # b \\n", "ESCAPED": "one\ntwo",
        "KEY": "-----BEGIN\nlines\n-----END", "HASH": "a#b", "EMPTY": "", "QUOTED": "it's", "HERE": "$HOME",
    }  # fmt: skip
    path.write_bytes(
        "\ufeffFROM_SHELL\r\nHOST=other\r\nX=${FROM_SHELL}\r\n".encode()
    )  # as docker, and as Windows writes
    assert read_files([path]) == {"FROM_SHELL": "s h", "HOST": "other", "X": "s h"}
    (tmp_path / "more").write_text("HOST=last\n")
    assert read_files([path, tmp_path / "more"])["HOST"] == "last"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A=1\nPASSWORD hunter2\n", ", line 2: this is not of the form NAME=VALUE."),
        ('A=1\n\nB="hunter2\n', ", line 3: this is not of the form NAME=VALUE."),
        ("NOBODY_HAS_THIS\n", ", line 1: NOBODY_HAS_THIS has no value, and your shell has none."),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line_and_not_shown(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / ".env"
    path.write_text(text)
    with pytest.raises(InvalidConfig) as caught:
        read_files([path])
    assert caught.value.message == f"{path}{said}"
    assert "hunter2" not in caught.value.whole
    with pytest.raises(InvalidConfig, match="No such file"):
        read_files([tmp_path / "nowhere"])


def test_what_is_in_single_quotes_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL_ONE", "${A}")
    (tmp_path / ".env").write_text("A=1\n# B='x'\nB= 'x${A}y'\nexport C=\"x${A}y\"\nD=${B}'\nSHELL_ONE\n")
    assert read_files([tmp_path / ".env"]) == {"A": "1", "B": "x${A}y", "C": "x1y", "D": "x${A}y'", "SHELL_ONE": "${A}"}


def test_what_looks_like_a_secret() -> None:
    secret = "HF_TOKEN OPENAI_API_KEY AWS_SECRET_ACCESS_KEY DB_PASSWORD PGPASSWORD GITHUB_PAT SENTRY_DSN api_key TOKEN".split()
    others = "MAX_TOKENS TOKENIZERS_PARALLELISM MONKEY PWD PATH LR".split()
    assert list(secrets_in(dict.fromkeys([*secret, *others], "x" * 20))) == secret
    assert secrets_in({"SORT_KEY": "name", "GOOGLE_CREDENTIALS": "/home/me/key.json"}) == {}


def test_variables_from_the_shell_and_from_files(spell: Spell, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".env").write_text("A=file\nB='two  words'\nHF_TOKEN=hf_0123456789\nOTHER_KEY=abcdefghijk\n")
    words = ["--env-file", ".env", "-e", "A", "-e", "C=typed", 'echo "$A/$B/$C/$HF_TOKEN"']
    done = spell("run", *words, cwd=folder, env={"A": "shell=1"})
    assert "\nshell=1/two  words/typed/hf_0123456789\n" in done.out
    assert (
        "WARNING: By their names these are secrets, and the run keeps them as plain variables: HF_TOKEN, OTHER_KEY"
        in done.err
    )
    assert "spell secret import .env\n" in done.err
    assert spell("secret", "import", ".env", cwd=folder).out == "Secret HF_TOKEN set\nSecret OTHER_KEY set\n"
    assert spell("secret", "import", ".env", "A", cwd=folder).out == "Secret A set\n"
    assert (
        "has no variable X.\n       It has A, B, HF_TOKEN, OTHER_KEY."
        in spell("secret", "import", ".env", "X", cwd=folder).err
    )
    done = spell("run", *words, cwd=folder, env={"A": "shell=1"})  # A is not a secret by its name
    assert "\nshell=1/two  words/typed/***\n" in done.out
    assert "Given by your secrets of these names, not by the file: HF_TOKEN, OTHER_KEY\n" in done.err
    spec = spell.client.runs.get("latest").spec
    assert (sorted(spec["env"]), spec["secrets"]) == (
        ["A", "B", "C"],
        {"HF_TOKEN": "HF_TOKEN", "OTHER_KEY": "OTHER_KEY"},
    )
    done = spell("run", "--env-file", ".env", "--secret", "HF_TOKEN", "-e", "NOBODY", "true", cwd=folder)
    assert (done.code, "Your shell has no variable NOBODY" in done.err) == (3, True)


def test_every_verb_that_casts_offers_secrets_and_sees_the_project(spell: Spell, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".env").write_text("LR=1\nMY_TOKEN=hf_0123456789\n")
    earlier = spell("run", "--env-file", ".env", "mkdir checkpoints; touch checkpoints/1", cwd=folder).number
    search = ("hyper", "grid", "--param", "N=1", "-b")
    for verb in ((*search, "echo :N:"), ("notebook",)):
        done = spell(*verb, "--env-file", ".env", "--project", "nowhere", cwd=folder)
        assert done.code == 1 and "Or create it with --force." in done.err, (verb, done.err)
    plain = "the run keeps them as plain variables: MY_TOKEN"
    resume = ("run", "-b", "--resume", str(earlier))
    assert plain in spell(*resume, "--env-file", ".env", cwd=folder).err
    assert spell("secret", "import", ".env", cwd=folder).code == 0
    for verb in (resume, search):
        done = spell(*verb, "--env-file", ".env", "true :N:" if verb is search else "true", cwd=folder)
        assert done.code == 0 and "Given by your secrets of these names" in done.err, (verb, done.err)
    with spell.popen("notebook", "--env-file", str(folder / ".env"), text=True, bufsize=1) as notebook:
        assert notebook.stdout and "Casting spell #" in notebook.stdout.readline()
        cast = spell.client.runs.list(limit=3)
        spell.client.runs.kill(str(cast[-1].number))
        notebook.wait(DEADLINE_S)
    for run in cast:
        spec = spell.client.runs.get(run.number).spec
        assert (sorted(spec["env"]), spec["secrets"]) == (["LR"], {"MY_TOKEN": "MY_TOKEN"}), run
