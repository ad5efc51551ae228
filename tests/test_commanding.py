"""Which words of a line are the command's, and what its shell reads."""

from __future__ import annotations

import shlex

import click
import pytest

from orchestrator.cli.input.commanding import line_of, lost_quotes
from orchestrator.cli.run import run


def understood(typed: str) -> click.Context:
    """A line that begins with `spell run`, as click and we understand it."""
    return run.make_context("run", shlex.split(typed))


@pytest.mark.parametrize(
    ("typed", "command", "label"),
    [
        ("python -m http.server", "python -m http.server", ()),
        ("python train.py --epochs 3", "python train.py --epochs 3", ()),
        ("--label x python train.py --lr=0.1 --label y", "python train.py --lr=0.1 --label y", ("x",)),
        ("python -c 'print(1)'", "python -c 'print(1)'", ()),
        ("/usr/bin/python3.11 -m pip --label x", "/usr/bin/python3.11 -m pip --label x", ()),
        ("bash -e x.sh", "bash -e x.sh", ()),
        ("uv run -m train -v", "uv run -m train -v", ()),
        ("A=1 python3.12 -c ''", "A=1 python3.12 -c ''", ()),
        ("--label x grep --color=always -n x", "grep --color=always -n x", ("x",)),
        ("'python x.py' --label x", "python x.py", ("x",)),
        ("python x.py --label x", "python x.py", ("x",)),
        ("--label x -- python x.py --label y", "python x.py --label y", ("x",)),
    ],
)
def test_whose_the_options_after_a_command_are(typed: str, command: str, label: tuple[str, ...]) -> None:
    context = understood(typed)
    assert (line_of(context.params["command"]), context.params["labels"]) == (command, label)


@pytest.mark.parametrize("typed", ["--lr 0.1 python x.py", "--lr 0.1 'python x.py'", "'python x.py' --lr 0.1"])
def test_an_option_that_nobody_has_is_refused(typed: str) -> None:
    with pytest.raises(click.UsageError, match="No such option '--lr'"):
        understood(typed)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["python", "-c", "print(1)"], "python -c 'print(1)'"),
        (["echo", "a  b"], "echo 'a  b'"),
        (["printf", "it's\n"], """printf 'it'"'"'s\n'"""),
        (["echo 'a  b'"], "echo 'a  b'"),
        (["echo", "--lr=0.1", "&&", "echo", "$HOME", "2>", "x*"], "echo --lr=0.1 && echo $HOME 2> x*"),
    ],
)
def test_words_keep_the_quotes_that_the_shell_removed(words: list[str], line: str) -> None:
    assert (line_of(words), lost_quotes(words)) == (line, False)


def test_words_after_a_quoted_part_lose_their_quotes() -> None:
    words = ["cd x && echo", "a  b"]
    assert (line_of(words), lost_quotes(words)) == ("cd x && echo a  b", True)
