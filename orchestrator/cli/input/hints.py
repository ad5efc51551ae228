"""Hints in errors: the verb or option that was meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

_CLOSE = 0.66  # of 1.0; less, and words are taken for each other that share only some letters


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
