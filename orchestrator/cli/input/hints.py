"""Hints in errors: the verb or option that was meant, and `--` before a command whose options spell took for its own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import click

from orchestrator.cli.output import show
from orchestrator.errors import InvalidCommit, InvalidConfig, InvalidRepository, NotFound, UsageError

_CLOSE = 0.66  # of 1.0; less, and words are taken for each other that share only some letters
_MIXED = "spell.mixed"  # in a context's meta: what to type instead


def close_to(word: str, group: click.Group, ctx: click.Context) -> str:
    """A question that suggests commands of a group for a word, or what spell has instead; "" when nothing is like it."""
    from orchestrator.cli.input.words import SAYS, VERBS  # 1 ms: every command loads this module, few are misspelled

    return _meant(word, [*group.list_commands(ctx), *_options(group, ctx)], VERBS, SAYS)


def explained(error: click.ClickException) -> click.ClickException:
    """The error, with what was meant by an unknown option. click suggests whatever shares some letters and the dashes."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return error
    from orchestrator.cli.input.words import OPTION_SAYS, OPTIONS  # 1 ms: as above

    known = _options(error.ctx.command, error.ctx)
    hint = _meant(error.option_name.lstrip("-"), known, OPTIONS, OPTION_SAYS if "--pip" in known else {})
    return click.UsageError(f"No such option {error.option_name!r}.{hint}", error.ctx)


def _options(command: click.Command, ctx: click.Context) -> list[str]:
    parameters = (item for item in command.get_params(ctx) if isinstance(item, click.Option))
    return [name for item in parameters for name in (*item.opts, *item.secondary_opts)]


def _meant(word: str, known: Sequence[str], theirs: Mapping[str, str], says: Mapping[str, str]) -> str:
    found = [ours for ours, words in theirs.items() if word in words.split() and ours.split()[0] in known]
    if not found:
        if text := next((text for words, text in says.items() if word in words.split()), ""):
            return f" {text}"
        found = _alike(word, known)
    return f" Did you mean {' or '.join(repr(name) for name in found[:2])}?" if found else ""


def _alike(word: str, known: Sequence[str]) -> list[str]:
    """The known words with nearly the same letters; dashes at their beginning do not count."""
    import difflib  # 1 ms: as above

    plain = {name.lstrip("-"): name for name in known}
    close = difflib.get_close_matches(word, list(plain), n=2, cutoff=_CLOSE)
    close += [name for name in plain if sorted(name) == sorted(word) and name not in close]
    return [plain[name] for name in close]


class Group(click.Group):
    """A verb with commands of its own: an unknown one gets a hint."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but for the hint."""
        if args[0] not in self.list_commands(ctx) and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}.{self.hint(ctx, args)}")
        return super().resolve_command(ctx, args)

    def hint(self, ctx: click.Context, args: Sequence[str]) -> str:
        """What to say about an unknown command."""
        return close_to(args[0], self, ctx)


class Commanding(click.Command):
    """`spell run`: takes options before and after the command, and so may take one that belongs to the command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; its errors also say how to keep options for the command."""
        if "--deps-from-env" in args:
            from orchestrator.cli.input.virtualenv import with_value  # 20 ms: packaging; few runs are cast so

            args = with_value(args)
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
