"""Shell completion: click's own scripts, printed."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from orchestrator.errors import UsageError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL: eval "$(spell completion bash)"."""
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"There is no completion for {shell}.")
    click.echo(kind(ctx.find_root().command, {}, "spell", "_SPELL_COMPLETE").source())
