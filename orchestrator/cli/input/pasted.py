"""Refuses a line that was pasted from an article, with typographic dashes and quotes, and shows it as it was meant."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import click

from orchestrator.errors import UsageError


def refuse_pasted(ctx: click.Context, command: click.Command, args: Sequence[str]) -> None:
    """Refuse a line in which a word that is no value of an option begins with a typographic dash or quote.

    After `--` all words are the command's. In a quoted command such characters are the person's.

    Args:
        ctx: of the group that `command` is in.
        args: what was typed after the name of `command`.

    Raises:
        UsageError: shows the line as it was meant.
    """
    if "".join(args).isascii():  # as good as always
        return
    from orchestrator.spec.pasted import kind_of, meant_by  # 0.2 ms; few lines have other characters

    typed = args[: args.index("--")] if "--" in args else args
    odd = next((word for word in _free_words(ctx, command, typed) if kind_of(word)), None)
    if odd is not None:
        options = {name for item in command.params for name in item.opts}
        verb = [*ctx.command_path.split(), str(command.name)]
        lines = [shlex.join([*verb, *meant_by(args, names)]) for names in (options, ())]
        raise UsageError(
            f"{odd[0]} is no {kind_of(odd)} to a shell.", "You may mean: " + "\nor: ".join(dict.fromkeys(lines))
        )


def _free_words(ctx: click.Context, command: click.Command, typed: Sequence[str]) -> list[str]:
    """The words that are no options and no values of such; all of a line that click cannot read."""
    inner = command.context_class(command, parent=ctx, info_name=command.name, **command.context_settings)
    try:
        given, rest, _ = command.make_parser(inner).parse_args(list(typed))
    except click.ClickException:
        return list(typed)
    arguments = [given.get(item.name or "") for item in command.params if isinstance(item, click.Argument)]
    found = [
        [value] if isinstance(value, str) else value for value in arguments if isinstance(value, str | tuple | list)
    ]
    return [*(word for words in found for word in words), *rest]
