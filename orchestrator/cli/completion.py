"""Prints completion scripts: click's own, except for bash. Click's script for bash offers files or words but never both,
splits words at spaces, and puts a space after folders."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, get_completion_class

from orchestrator.errors import UsageError


class _Bash(BashComplete):
    """A script for bash. Click answers with a line for each word: its type, a comma, the word."""

    source_template = r"""
%(complete_func)s() {
    local line value word="${COMP_WORDS[COMP_CWORD]}" IFS=$'\n'
    COMPREPLY=()
    while IFS= read -r line; do
        value="${line#*,}"
        case "${line%%%%,*}" in
            dir) COMPREPLY+=($(compgen -d -- "$word")); compopt -o filenames ;;
            file) COMPREPLY+=($(compgen -f -- "$word")); compopt -o filenames ;;
            plain) COMPREPLY+=("$(printf %%q "$value")"); [[ "$value" == */ ]] && compopt -o nospace ;;
        esac
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete "$1")
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL: eval "$(spell completion bash)"."""
    kind = _Bash if shell == "bash" else get_completion_class(shell)
    if kind is None:
        raise UsageError(f"{shell} has no completion script.")
    click.echo(kind(ctx.find_root().command, {}, "spell", "_SPELL_COMPLETE").source())
