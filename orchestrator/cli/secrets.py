"""`spell secret`: sets, lists and removes secrets. A value is typed or piped in, and never shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator.cli.input import complete
from orchestrator.cli.input.envfile import read_files, secrets_in
from orchestrator.cli.input.hints import Group
from orchestrator.cli.output import show
from orchestrator.cli.output.detach import interruptible
from orchestrator.client.client import connect
from orchestrator.errors import NotFound, UsageError
from orchestrator.spec.names import check_secret_name

MASKED_BYTES = 4
"""Shortest value, in bytes, that logs mask as `***`; `supervisor.masking` says why."""

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.group(cls=Group, context_settings=_HELP)
def secret() -> None:
    """Keep encrypted passwords and keys for runs. `spell run --secret NAME` gives one to a command."""


@secret.command("set", context_settings=_HELP)
@click.argument("name", nargs=-1, shell_complete=complete.secrets)
def set_(name: Sequence[str]) -> None:
    """Set or replace the secret NAME. On a terminal spell asks for the value; elsewhere it reads standard input, without
    one newline at its end."""
    if len(name) != 1 or "=" in name[0]:
        # the message shows no argument, because one may hold the value
        words = "A value cannot be an argument, because your shell keeps arguments, and other people can see them."
        raise UsageError(
            words if name else "The name of the secret is missing.",
            "Type: spell secret set NAME     or: spell secret set NAME < FILE",
        )
    check_secret_name(name[0])
    value = _value(name[0])
    with connect() as client:
        found = client.secrets.put(name[0], value)
    if len(value) < MASKED_BYTES:
        show.warn(f"The value has fewer than {MASKED_BYTES} bytes, so logs do not mask it.")
    show.say(f"Secret {found.name} {'set' if found.created_at == found.updated_at else 'overwritten'}")


def _value(name: str) -> bytes:
    if sys.stdin.isatty():
        with interruptible("The secret was not set."):
            typed: str = click.prompt(f"Value of {name}", hide_input=True, err=True)
        return typed.encode(errors="surrogateescape")
    value = sys.stdin.buffer.read()
    return value.removesuffix(b"\r\n") if value.endswith(b"\r\n") else value.removesuffix(b"\n")


@secret.command("import", context_settings=_HELP)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("name", nargs=-1)
def import_(file: Path, name: Sequence[str]) -> None:
    """Set secrets from a FILE of variables (.env): each NAME, or all whose names say that they are secrets."""
    variables = read_files([file])
    if missing := [one for one in name if one not in variables]:
        raise NotFound(f"{file} has no variable {missing[0]}.", f"It has {', '.join(variables)}." if variables else "")
    found = {one: variables[one] for one in name} if name else secrets_in(variables)
    if not found:
        cure = f"Name those that are: spell secret import {file} NAME"
        raise NotFound(f"No variable of {file} is a secret by its name.", cure)
    for one in found:
        check_secret_name(one)
    with connect() as client:
        for one, value in found.items():
            put = client.secrets.put(one, value.encode(errors="surrogateescape"))
            show.say(f"Secret {put.name} {'set' if put.created_at == put.updated_at else 'overwritten'}")


@secret.command("list", context_settings=_HELP)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def list_(json_: bool) -> None:
    """List the names of secrets, and when they were set."""
    with connect() as client:
        found = client.secrets.list()
    if json_:
        show.as_json(found)
    elif found:
        rows = [[item.name, show.ago(item.created_at), show.ago(item.updated_at)] for item in found]
        show.table(["NAME", "CREATED", "SET"], rows)
    else:
        show.say("There are no secrets yet. Try: spell secret set NAME", err=True)


@secret.command("rm", context_settings=_HELP)
@click.argument("name", nargs=-1, required=True, shell_complete=complete.secrets)
def rm(name: Sequence[str]) -> None:
    """Remove each secret NAME. Running commands keep it; waiting runs that need it will fail."""
    with connect() as client:
        secrets = client.secrets
        for one in name:
            secrets.remove(one)
            show.say(f"Secret {one} removed")
