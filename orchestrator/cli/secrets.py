"""Secrets: `spell secret set|list|rm`. What one holds is typed or piped in, and never shown again."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from orchestrator.cli.input import complete
from orchestrator.cli.output import show
from orchestrator.client.client import connect
from orchestrator.errors import UsageError
from orchestrator.spec.names import check_secret_name

MASKED_BYTES = 4
"""How long a value must be for logs to hold `***` in its place; `supervisor.masking` says why."""

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.group(context_settings=_HELP)
def secret() -> None:
    """Keep passwords and keys for runs, encrypted: `spell run --secret NAME` gives them to a command."""


@secret.command("set", context_settings=_HELP)
@click.argument("name", nargs=-1, shell_complete=complete.secrets)
def set_(name: Sequence[str]) -> None:
    """Set the secret NAME, also where there is one. Its value is asked for, or read from standard input, up to its end;
    one newline at its end is left out."""
    if len(name) != 1 or "=" in name[0]:
        # whatever it is that was typed: it is not shown
        words = "A value is never an argument: your shell keeps those, and others can see them."
        raise UsageError(
            words if name else "Which secret?", "Type: spell secret set NAME     or: spell secret set NAME < FILE"
        )
    check_secret_name(name[0])
    value = _value(name[0])
    with connect() as client:
        found = client.secrets.put(name[0], value)
    if len(value) < MASKED_BYTES:
        show.warn(f"It has less than {MASKED_BYTES} bytes: logs of runs that say it will show it.")
    show.say(f"Secret {found.name} {'set' if found.created_at == found.updated_at else 'overwritten'}")


def _value(name: str) -> bytes:
    if sys.stdin.isatty():
        typed: str = click.prompt(f"Value of {name}", hide_input=True, err=True)
        return typed.encode(errors="surrogateescape")
    value = sys.stdin.buffer.read()
    return value.removesuffix(b"\r\n") if value.endswith(b"\r\n") else value.removesuffix(b"\n")


@secret.command("list", context_settings=_HELP)
@click.option("--json", "json_", is_flag=True, help="Print them as JSON.")
def list_(json_: bool) -> None:
    """List secrets: their names, and when they were set."""
    with connect() as client:
        found = client.secrets.list()
    if json_:
        show.as_json(found)
    elif found:
        rows = [[item.name, show.ago(item.created_at), show.ago(item.updated_at)] for item in found]
        show.table(["NAME", "CREATED", "SET"], rows)
    else:
        show.say("There are no secrets; set one with: spell secret set NAME", err=True)


@secret.command("rm", context_settings=_HELP)
@click.argument("name", nargs=-1, required=True, shell_complete=complete.secrets)
def rm(name: Sequence[str]) -> None:
    """Remove each secret NAME. Commands that run keep it; runs that wait for it will fail."""
    with connect() as client:
        secrets = client.secrets
        for one in name:
            secrets.remove(one)
            show.say(f"Secret {one} removed")
