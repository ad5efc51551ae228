"""Hints in errors: verbs close to a misspelled one, and `--` before a command whose options spell took for its own."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import click

from orchestrator.cli.output import show
from orchestrator.errors import InvalidCommit, InvalidConfig, InvalidRepository, NotFound, UsageError

_MEANT = {
    "cancel": "stop",
    "check": "doctor",
    "clean": "gc",
    "describe": "info",
    "download": "cp",
    "get": "cp",
    "help": "--help",
    "jobs": "ps",
    "list": "ps",
    "log": "logs",
    "machines": "machine-types",
    "prune": "gc",
    "shell": "exec",
    "show": "info",
    "ssh": "exec",
    "status": "ps",
    "submit": "run",
    "tail": "logs",
    "top": "stats",
    "version": "--version",
}
"""Verbs of the original and of other tools, and our verb for each."""
_MIXED = "spell.mixed"  # in a context's meta: what to type instead


def close_to(word: str, words: Iterable[str]) -> str:
    """A question that suggests close words; "" when none is close."""
    import difflib  # 1 ms: every command loads this module, few are misspelled

    found = [_MEANT[word]] if word in _MEANT else difflib.get_close_matches(word, list(words), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(name) for name in found)}?" if found else ""


class Commanding(click.Command):
    """`spell run`: takes options before and after the command, and so may take one that belongs to the command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; its errors also say how to keep options for the command."""
        ctx.meta[_MIXED] = self._with_dashes(ctx.command_path.split(), args)
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(error.format_message() + _hint(ctx, "\n"), ctx) from None
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

    def _with_dashes(self, verb: Sequence[str], args: Sequence[str]) -> str:
        """The same line with `--` before the command; "" when that changes nothing."""
        valued = {
            name for item in self.params if isinstance(item, click.Option) and not item.is_flag for name in item.opts
        }
        first = 0
        while first < len(args) and args[first].startswith("-") and args[first] != "--":
            first += 2 if args[first] in valued else 1
        command = args[first:]
        quoted = bool(command) and (command[0] == "--" or " " in command[0].strip())
        if quoted or not any(word.startswith("-") and word != "-" for word in command):
            return ""
        return shlex.join([*verb, *args[:first], "--", *command])


def _hint(ctx: click.Context, before: str) -> str:
    typed = ctx.meta.get(_MIXED)
    return f"{before}If that option belongs to the command: {typed}" if typed else ""
