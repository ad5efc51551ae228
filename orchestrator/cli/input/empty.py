"""One rule for empty values: an option or argument that is given has a value. An empty one is most often a variable of the
shell that is not set, and must not stand for "all" or "here"."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import click

from orchestrator.errors import UsageError

MAY_BE_EMPTY = frozenset({"description", "command"})
"""A run may have no description; words of a command are the command's."""


def refuse_empty(ctx: click.Context, command: click.Command, args: Sequence[str]) -> None:
    """Refuse a line in which an option or argument is empty.

    Args:
        ctx: of the group that `command` is in.
        args: what was typed after the name of `command`.

    Raises:
        UsageError: names the option or argument.
    """
    if not any(word == "" or word.endswith("=") for word in args):  # as good as always
        return
    inner = command.context_class(command, parent=ctx, info_name=command.name, **command.context_settings)
    with suppress(click.ClickException):  # click itself says what else is wrong with such a line
        given, rest, _ = command.make_parser(inner).parse_args(list(args))
        for parameter in command.params:
            value = given.get(parameter.name or "")
            if parameter.name not in MAY_BE_EMPTY and (
                value == "" or (isinstance(value, list | tuple) and "" in value)
            ):
                raise UsageError(f"{_named(parameter)} is empty.", _cure(parameter))
        if isinstance(command, click.Group) and rest:
            _refuse_below(inner, command, rest)


def _refuse_below(ctx: click.Context, group: click.Group, args: Sequence[str]) -> None:
    if verb := group.get_command(ctx, args[0]):
        refuse_empty(ctx, verb, args[1:])
    elif verb := group.get_command(ctx, getattr(group, "default", "")):
        refuse_empty(ctx, verb, args)


def _named(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return f"Option {next((name for name in parameter.opts if name.startswith('--')), parameter.opts[0])}"
    shown = (parameter.metavar or str(parameter.name).upper()).strip("[.…]")
    return "An argument" if " " in shown else shown


def _cure(parameter: click.Parameter) -> str:
    words = "Perhaps a variable of the shell is not set."
    return words if parameter.required else f"Leave it out for the default, or give it a value. {words}"
