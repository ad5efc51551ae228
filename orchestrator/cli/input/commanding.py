"""Verbs that take a command: which words of a line are its words, and the line that its shell reads.

`spell run` is put in front of a command that people have. If that is one quoted word, options after it are spell's. If it
begins with a bare word, all words from there on are the command's as soon as one of its options can be nobody else's:
spell has no such option (`python train.py --lr 0.1`), or it stands directly behind a program that runs what its
arguments say (`python -c …`). Otherwise its options are spell's, and a warning says so.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import click

from orchestrator.cli.input.hints import explained
from orchestrator.cli.output import show
from orchestrator.errors import InvalidCommit, InvalidConfig, InvalidRepository, NotFound, UsageError

_MIXED = "spell.mixed"  # in a context's meta: what to type instead
_RUNS_OTHERS = re.compile(
    r"(.*/)?(python[\d.]*|pypy[\d.]*|ipython|Rscript|julia|node|perl|ruby|bash|dash|sh|zsh|env|nice|nohup|time|timeout"
    r"|stdbuf|numactl|mpirun|torchrun|deepspeed|accelerate|launch|uv|uvx|pdm|poetry|pipenv|hatch|conda|mamba|pixi|run|\w+=.*)\Z"
)
_Read = Callable[[list[str]], Any]


class Commanding(click.Command):
    """A verb that takes a command, with options before and after it."""

    def make_parser(self, ctx: click.Context) -> Any:
        """As click does, for a line in which `--` stands before a command whose options are its own."""
        parser = super().make_parser(ctx)
        read = parser.parse_args
        # Whoever reads a line for a reason of its own (an empty value, a typographic dash) has the same rule.
        parser.parse_args = lambda args: read(self._own(read, args))  # type: ignore[method-assign]
        return parser

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; its errors also say how to keep options for the command."""
        if "--deps-from-env" in args:
            from orchestrator.cli.input.virtualenv import with_value  # 20 ms: packaging; few runs are cast so

            args = with_value(args)
        args = self.meant(ctx, args, told=not ctx.resilient_parsing)
        ctx.meta[_MIXED] = self._with_dashes(ctx.command_path.split(), args)
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(explained(error).format_message() + _hint(ctx, "\n"), ctx) from None
        if ctx.meta[_MIXED] and not ctx.resilient_parsing:
            show.warn(
                "The options after the command were taken as spell's, because they are not in quotes.\n"
                f"  If they belong to the command: {ctx.meta[_MIXED]}"
            )
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """As click does; errors that such an option may have caused say so, too."""
        try:
            return super().invoke(ctx)
        except (UsageError, InvalidConfig, InvalidCommit, InvalidRepository, NotFound) as error:
            error.cure += _hint(ctx, "\n" if error.cure else "")
            raise

    def meant(self, ctx: click.Context, args: list[str], *, told: bool = False) -> list[str]:
        """The line as it is understood: with `--` before a command whose options are its own.

        Args:
            told: warn about options among them that spell has, too.
        """
        return self._own(super().make_parser(ctx).parse_args, args, told=told)

    def _own(self, read: _Read, args: list[str], *, told: bool = False) -> list[str]:
        first = self._first(args)
        head, command = args[:first], args[first:]
        if not _has_options(command):
            return args
        if _runs_what_follows(command):
            return [*head, "--", *command]
        unknown = _unknown(read, args)
        if not unknown or _unknown(read, head):
            return args
        if told:
            self._warn_own(unknown, command)
        return [*head, "--", *command]

    def _warn_own(self, unknown: str, command: Sequence[str]) -> None:
        known = {name for item in self.params if isinstance(item, click.Option) for name in item.opts}
        also = [name for name in dict.fromkeys(word.partition("=")[0] for word in command[1:]) if name in known]
        if also:
            show.warn(
                f"spell has no option {unknown}, so all that follows {command[0]!r} was taken as the command's, "
                f"{', '.join(also)} too.\n  Options that are meant for spell stand before the command."
            )

    def _first(self, args: Sequence[str]) -> int:
        """Where the command begins: after the options before it."""
        valued = {
            name for item in self.params if isinstance(item, click.Option) and not item.is_flag for name in item.opts
        }
        first = 0
        while first < len(args) and args[first].startswith("-") and args[first] != "--":
            first += 2 if args[first] in valued else 1
        return first

    def _with_dashes(self, verb: Sequence[str], args: Sequence[str]) -> str:
        """The same line with `--` before the command; "" when that changes nothing."""
        first = self._first(args)
        command = args[first:]
        return shlex.join([*verb, *args[:first], "--", *command]) if _has_options(command) else ""


def _has_options(command: Sequence[str]) -> bool:
    """Whether words that look like options follow a bare first word."""
    quoted = bool(command) and (command[0] == "--" or " " in command[0].strip())
    return not quoted and any(word.startswith("-") and word != "-" for word in command)


def _runs_what_follows(command: Sequence[str]) -> bool:
    """Whether an option stands directly behind programs that run what their arguments say."""
    other = next((word for word in command if not _RUNS_OTHERS.match(word)), "")
    return other.startswith("-") and other not in ("-h", "--help")


def _unknown(read: _Read, args: list[str]) -> str:
    """The first option that spell does not have; "" if it has all."""
    try:
        read(list(args))
    except click.NoSuchOption as error:
        return error.option_name
    except click.UsageError:
        pass  # click says it when it reads the line in earnest
    return ""


def _hint(ctx: click.Context, before: str) -> str:
    typed = ctx.meta.get(_MIXED)
    return f"{before}If that option belongs to the command: {typed}" if typed else ""


def line_of(words: Sequence[str]) -> str:
    """The line for the shell of a run. In several words, the quotes that the person's own shell removed are put back.

    A word that is an operator (`&&`), a variable or a pattern is meant for the shell of the run, and stays.
    """
    if len(words) < 2 or _is_quoted(words):
        return " ".join(words)
    return " ".join(shlex.quote(word) if _needs_quotes(word) else word for word in words)


def lost_quotes(words: Sequence[str]) -> bool:
    """Whether the shell of the run reads other words than the person's shell did."""
    return len(words) > 1 and _is_quoted(words) and any(map(_needs_quotes, words))


def _is_quoted(words: Sequence[str]) -> bool:
    return " " in words[0].strip()


def _needs_quotes(word: str) -> bool:
    return not word or bool(
        re.search(r"[\s'\"\\]", word) or (re.search(r"[();&|<>`]", word) and not re.match(r"\d*[;&|<>]", word))
    )
