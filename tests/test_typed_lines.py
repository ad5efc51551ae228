"""Lines as people type and paste them: empty values, typographic dashes and quotes, and durations."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from orchestrator.cli.input.empty import MAY_BE_EMPTY, refuse_empty
from orchestrator.cli.input.pasted import refuse_pasted
from orchestrator.cli.main import spell
from orchestrator.cli.verbs import VERBS
from orchestrator.errors import InvalidConfig, UsageError
from orchestrator.spec import durations
from orchestrator.spec.run import RunSpec

TOP = click.Context(spell, info_name="spell")


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The command and all below it, with the words that come before its own."""
    yield words, command
    for name, inner in command.commands.items() if isinstance(command, click.Group) else ():
        yield from commands(inner, (*words, name))


@pytest.mark.parametrize("verb", VERBS)
def test_no_option_and_no_argument_may_be_empty(verb: str) -> None:
    """Each option that has a value, and each argument, of each command: the rule has its exceptions, and no other."""
    top = VERBS[verb].load()
    for words, command in commands(top):
        arguments = [item for item in command.params if isinstance(item, click.Argument)]
        for item in command.params:
            if item in arguments:
                typed = ["x"] * arguments.index(item) + [""]
            elif isinstance(item, click.Option) and not item.is_flag and not item.count:
                typed = [f"{item.opts[0]}=" if item.opts[0].startswith("--") else item.opts[0], ""][
                    : 1 if item.opts[0].startswith("--") else 2
                ]
            else:
                continue
            if item.name in MAY_BE_EMPTY:
                refuse_empty(TOP, top, [*words, *typed])
                continue
            with pytest.raises(UsageError, match=r" is empty\."):
                refuse_empty(TOP, top, [*words, *typed])


def test_what_may_look_empty() -> None:
    """Words of a command, a description, an empty variable; and a wrong line is click's to refuse."""
    for typed in (["echo", ""], ["-d", "", "true"], ["-e", "A=", "true"], ["--nonsense", ""], ["--name"]):
        refuse_empty(TOP, VERBS["run"].load(), typed)
    with pytest.raises(UsageError, match=r"^FILE.yaml is empty"):
        refuse_empty(TOP, VERBS["workflow"].load(), [""])


@pytest.mark.parametrize(
    ("verb", "typed", "meant"),
    [
        ("run", ["—", "pip", "tqdm", "“python", "a.py”"], "spell run --pip tqdm 'python a.py'"),
        (
            "run",
            ["—pip", "six", "“python", "a.py", "--prompt=‘", "’”"],
            """spell run --pip six 'python a.py --prompt='"'"' '"'"''""",
        ),
        ("run", ["–t", "cpu", "python", "a.py"], "spell run -t cpu python a.py"),
        ("run", ["—", "train.sh", "--lr", "1"], "spell run -- train.sh --lr 1"),
        ("run", ["—", "train.sh"], "spell run -- train.sh"),
        ("run", ["python", "a.py", "—lr", "1"], "spell run python a.py --lr 1"),
        ("run", ["«true»"], "spell run true"),
        ("ps", ["—all"], "spell ps --all"),
        ("run", ["echo “x”"], None),
        ("run", ["-d", "— why", "true"], None),
        ("run", ["--", "echo", "—x"], None),
        ("run", ["echo — ü"], None),
    ],
)
def test_a_pasted_line_is_shown_as_it_was_meant(verb: str, typed: list[str], meant: str | None) -> None:
    if meant is None:
        refuse_pasted(TOP, VERBS[verb].load(), typed)
        return
    with pytest.raises(UsageError, match=r"is no (dash|quote) to a shell") as caught:
        refuse_pasted(TOP, VERBS[verb].load(), typed)
    assert caught.value.cure.splitlines()[0] == f"You may mean: {meant}"


def test_a_pasted_command_of_a_file_or_program_is_refused() -> None:
    for command, meant in (("“python a.py”", "python a.py"), ("— python a.py", "-- python a.py")):
        with pytest.raises(InvalidConfig) as caught:
            RunSpec(command)
        assert caught.value.cure == f"Write it as: {meant}"
    RunSpec("échantillon --x")


@pytest.mark.parametrize(
    ("text", "unit", "seconds"),
    [
        ("90", "minutes", 5400),
        ("1.5", "minutes", 90),
        ("1e2", "seconds", 100),
        ("-1", "seconds", -1),
        ("90s", "minutes", 90),
        ("1h", "minutes", 3600),
        ("1h30m", "", 5400),
        ("1 hour, 30 min", "", 5400),
        ("2 Days", "", 172_800),
        ("1w", "", 604_800),
        ("1:30:00", "minutes", 5400),
        ("1:30", "minutes", None),
        ("soon", "minutes", None),
        ("inf", "minutes", None),
        ("nan", "minutes", None),
        ("1e999", "minutes", None),
        ("5", "", None),
        ("1h-30m", "minutes", None),
        ("", "minutes", None),
    ],
)
def test_durations(text: str, unit: str, seconds: float | None) -> None:
    if seconds is not None:
        assert durations.seconds(text, unit) == seconds
        return
    with pytest.raises(InvalidConfig, match="is not a duration") as caught:
        durations.seconds(text, unit)
    assert "1h30m" in caught.value.cure
